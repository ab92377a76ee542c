package standalone

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockDir prevents a second process from using the data directory: two NATS servers must not share their files. Closing
// the file releases the lock. The kernel also releases it when the process ends, even after a crash.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another runnel; stop it, or set another --data-dir", dir)
		}
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	return file, nil
}
