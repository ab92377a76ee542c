package torture

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// ErrSkipped means that a run cannot be made on this machine; its text says why. It is not a verdict.
var ErrSkipped = errors.New("skipped")

// volumes are separate file systems, by the part whose data they contain: "nats-0" …, "postgres" or "sqlite". Each volume
// is ext4 in a file. Therefore it can become full, or lose power, which discards data that was written but not synced.
type volumes map[string]*volume

const (
	// volumeBytes is large enough for a PostgreSQL with some of its logs.
	volumeBytes = 320 << 20
	// unmountTime is far longer than a killed process takes to end.
	unmountTime = 10 * time.Second
)

// mountVolumes makes and mounts a volume for each part, below dir. The caller must unmount them in any case.
func mountVolumes(dir string, parts ...string) (volumes, error) {
	if err := canMount(); err != nil {
		return nil, err
	}
	all := volumes{}
	for _, part := range parts {
		v, err := makeVolume(filepath.Join(dir, part+".image"), filepath.Join(dir, part+".volume"), volumeBytes)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make a volume for %s: %w", part, err), all.unmount())
		}
		all[part] = v
	}
	return all, nil
}

// data returns the directory for a part's data.
func (all volumes) data(part string) string { return filepath.Join(all[part].dir, part) }

// unmount unmounts all volumes. It may be called more than once.
func (all volumes) unmount() error {
	var failed []error
	for _, v := range all {
		failed = append(failed, v.unmount())
	}
	return errors.Join(failed...)
}

// sync syncs all data written so far to disk, as on a machine that has run for a while.
func (all volumes) sync() error {
	var failed []error
	for _, v := range all {
		failed = append(failed, v.sync())
	}
	return errors.Join(failed...)
}
