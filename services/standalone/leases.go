package standalone

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history"
)

// releaseLeases releases the leases of former workers, so that after a kill the process need not wait for its old leases
// to expire. The caller must hold the lock of the data directory, which proves that no other worker runs.
func releaseLeases(ctx context.Context, store history.Store) error {
	listed, err := store.Leases(ctx)
	if err != nil {
		return fmt.Errorf("read the leases of the former process: %w", err)
	}
	held := map[string][]uint32{}
	for _, lease := range listed.GetLeases() {
		if lease.GetWorker() != "" {
			held[lease.GetWorker()] = append(held[lease.GetWorker()], lease.GetPartition())
		}
	}
	for worker, partitions := range held {
		if _, err := store.Lease(ctx, &historyv1.LeaseRequest{Worker: worker, Release: partitions, Stopping: true}); err != nil {
			return fmt.Errorf("release the leases of the former process: %w", err)
		}
	}
	return nil
}

// isWithin reports whether a database is a file in a directory. If so, the process that holds the directory's lock is the
// only one that uses the database.
func isWithin(dir, database string) bool {
	path, ok := strings.CutPrefix(database, "sqlite:")
	if !ok {
		return false
	}
	dir, err := resolved(dir)
	if err != nil {
		return false
	}
	if path, err = resolved(filepath.Dir(strings.TrimPrefix(path, "//"))); err != nil {
		return false
	}
	relative, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(relative)
}

// resolved returns an absolute path without symbolic links.
func resolved(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(absolute)
}
