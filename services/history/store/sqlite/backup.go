package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// ErrNotHistory means that a file is not a history database of Runnel.
var ErrNotHistory = errors.New("the file is not a history database of Runnel")

// markTimeout limits how long the recording of a backup waits for the commits of a busy server.
const markTimeout = 30 * time.Second

// Backup copies a database into a new file, and records the copy's watermarks in the database. A server may use the
// database at the same time; the copy shows its state at one moment. The file appears only when it is complete and on
// disk. An existing file is never replaced. The schema is not upgraded, so a newer program can back up the database of a
// running older program.
//
// marks are the watermarks in the copy. They are also returned if recording them failed. The copy is then complete, but
// the streams keep more messages than necessary.
func Backup(ctx context.Context, path, file string) (marks []*historyv1.BackupMark, err error) {
	if err := mustNotExist(file); err != nil {
		return nil, err
	}
	db, err := existing(path, "rw")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := check(ctx, db); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	partial := file + ".partial"
	defer func() { _ = os.Remove(partial) }() // no effect after success
	// The file is created here so that only its owner can read it.
	if err := os.WriteFile(partial, nil, 0o600); err != nil {
		return nil, fmt.Errorf("create the backup: %w", err)
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", partial); err != nil {
		return nil, fmt.Errorf("copy %s: %w", path, err)
	}
	if marks, err = marksIn(ctx, partial); err != nil {
		return nil, fmt.Errorf("read the backup: %w", err)
	}
	if err := syncFile(partial); err != nil {
		return nil, fmt.Errorf("sync the backup: %w", err)
	}
	if err := os.Rename(partial, file); err != nil {
		return nil, fmt.Errorf("name the backup: %w", err)
	}
	if err := syncFile(filepath.Dir(file)); err != nil {
		return nil, fmt.Errorf("sync the backup's directory: %w", err)
	}
	if err := record(ctx, db, marks); err != nil {
		return marks, fmt.Errorf("the backup is complete, but could not be recorded, so the streams keep commands that it contains: %w", err)
	}
	return marks, nil
}

// Restore replaces a database that no program uses by a backup. prepare is called with a copy of the backup before the
// replacement. The former database is renamed to the returned name, which is empty if there was no database.
func Restore(ctx context.Context, file, path string, prepare func(ctx context.Context, staged string) error) (former string, err error) {
	staged := path + ".restoring"
	for _, left := range files(staged) { // files of an interrupted restore
		if err := os.Remove(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("remove what is left of an earlier restore: %w", err)
		}
	}
	if err := copyFile(file, staged); err != nil {
		return "", fmt.Errorf("copy the backup: %w", err)
	}
	defer func() {
		for _, left := range files(staged) {
			_ = os.Remove(left)
		}
	}()
	if err := checkFile(ctx, staged); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	if err := prepare(ctx, staged); err != nil {
		return "", err
	}
	for _, left := range files(staged)[1:] {
		if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("the prepared copy is still in use: %s exists", left)
		}
	}
	if err := giveToOwner(staged); err != nil {
		return "", fmt.Errorf("give the restored database to the server's user: %w", err)
	}
	if err := syncFile(staged); err != nil {
		return "", fmt.Errorf("sync the restored database: %w", err)
	}
	former, err = setAside(path)
	if err != nil {
		return "", fmt.Errorf("set the former database aside: %w", err)
	}
	if err := os.Rename(staged, path); err != nil {
		return former, fmt.Errorf("put the restored database in place: %w", err)
	}
	return former, syncFile(filepath.Dir(path))
}

// setAside gives a database a second name, and keeps the main file under its own name too. The database therefore always
// exists. A server would take a missing database for a new installation.
func setAside(path string) (former string, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	former = path + ".before-" + time.Now().UTC().Format("20060102T150405.000Z")
	names := files(former)
	for i, name := range files(path)[1:] { // these files belong to the former main file, and SQLite would apply them to any file of this name
		if err := os.Rename(name, names[i+1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return former, os.Link(path, former)
}

// giveToOwner changes the owner of a file that root has created to the owner of its directory, who runs the server.
func giveToOwner(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if owner, known := info.Sys().(*syscall.Stat_t); known {
		return os.Chown(path, int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// files returns the names of a database's files: the main file first, then the files that SQLite keeps beside it.
func files(path string) []string { return []string{path, path + "-wal", path + "-shm"} }

// existing opens a database that must exist. No file is read before the first statement.
func existing(path, mode string) (*sql.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path, []string{fmt.Sprintf("busy_timeout(%d)", markTimeout.Milliseconds()), synchronous})+"&mode="+mode)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// check returns an error if a database is not a history database of Runnel.
func check(ctx context.Context, db *sql.DB) error {
	var partitions string
	if err := db.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'partitions'").Scan(&partitions); err != nil {
		return fmt.Errorf("%w: %w", ErrNotHistory, err)
	}
	return nil
}

func checkFile(ctx context.Context, path string) (err error) {
	db, err := existing(path, "ro")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return check(ctx, db)
}

// marksIn reads the watermarks in a file.
func marksIn(ctx context.Context, path string) (marks []*historyv1.BackupMark, err error) {
	db, err := existing(path, "ro")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	watermarks, err := db.PrepareContext(ctx, selectWatermarks)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, watermarks.Close()) }()
	return readMarks(ctx, watermarks)
}

// record stores all marks of a backup, or none.
func record(ctx context.Context, db *sql.DB, marks []*historyv1.BackupMark) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect after the commit
	for _, mark := range marks {
		at := mark.GetWatermark()
		if _, err := tx.ExecContext(ctx, insertMark, mark.GetPartition(), at.GetStream(), int64(at.GetEpoch()), int64(at.GetSequence()), at.GetTimeNs()); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func mustNotExist(file string) error {
	_, err := os.Lstat(file)
	switch {
	case err == nil:
		return fmt.Errorf("%s exists; a backup never replaces a file", file)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("look for %s: %w", file, err)
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// syncFile syncs a file or a directory to disk.
func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
