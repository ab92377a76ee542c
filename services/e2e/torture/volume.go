package torture

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// ErrSkipped means that a run cannot be made on this machine, and why. It is not a verdict.
var ErrSkipped = errors.New("skipped")

// volumes are file systems of their own, by the part whose data is there: "nats-0" …, "postgres" or "sqlite". Each is ext4 in a file, so
// that it can run full, and lose power: what was written and not synced is gone then.
type volumes map[string]*volume

const (
	// volumeBytes holds a PostgreSQL with some of its logs.
	volumeBytes = 320 << 20
	// unmountTime is far longer than a killed process takes to end.
	unmountTime = 10 * time.Second
)

// mountVolumes makes and mounts a volume for each part, below dir. Unmount them when done, whatever happens.
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

// data is the directory for what a part keeps.
func (all volumes) data(part string) string { return filepath.Join(all[part].dir, part) }

// unmount unmounts all volumes. It may be called more than once.
func (all volumes) unmount() error {
	var failed []error
	for _, v := range all {
		failed = append(failed, v.unmount())
	}
	return errors.Join(failed...)
}

// sync syncs everything written so far to disk, as on a machine that has run for a while.
func (all volumes) sync() error {
	var failed []error
	for _, v := range all {
		failed = append(failed, v.sync())
	}
	return errors.Join(failed...)
}
