package torture

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// volume is one file system: ext4 in a file, mounted through a loop device.
type volume struct {
	image, dir string
	mounted    bool
	// patience is the time limit for the last process to close its files. After it the volume is detached.
	patience time.Duration
}

// canMount returns an error that says what is missing for making volumes.
func canMount() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: needs root", ErrSkipped)
	}
	for _, program := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: needs %s", ErrSkipped, program)
		}
	}
	return nil
}

func makeVolume(image, dir string, size int64) (*volume, error) {
	file, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(file.Truncate(size), file.Close(), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	// Without blocks reserved for root, a full volume is full for all users.
	if err := execute("mkfs.ext4", "-q", "-F", "-m", "0", image); err != nil {
		return nil, err
	}
	v := &volume{image: image, dir: dir, patience: unmountTime}
	if err := v.mount(); err != nil {
		// Containers often run as root but have no loop devices.
		return nil, fmt.Errorf("%w: needs loop devices: %w", ErrSkipped, err)
	}
	// PostgreSQL runs as a separate user.
	return v, errors.Join(os.Chmod(dir, 0o755), os.RemoveAll(filepath.Join(dir, "lost+found")))
}

func (v *volume) mount() error {
	if err := execute("mount", "-o", "loop", v.image, v.dir); err != nil {
		return err
	}
	v.mounted = true
	return nil
}

// unmount waits a limited time until no process uses the volume. After that it detaches the volume, which then ends with
// its last user.
func (v *volume) unmount() error {
	if !v.mounted {
		return nil
	}
	v.mounted = false
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Unmount(v.dir, 0)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EBUSY) || time.Since(begun) > v.patience:
			return errors.Join(fmt.Errorf("unmount %s: %w", v.dir, err), syscall.Unmount(v.dir, syscall.MNT_DETACH))
		}
	}
}

// shutdown is the request EXT4_IOC_SHUTDOWN. noLogFlush is its mode in which not even the journal is written, as in a
// power loss.
const (
	shutdown   = 0x8004587d
	noLogFlush = 2
)

// losePower stops all writes to the volume. Processes that use it get errors; it must be unmounted and mounted again.
func (v *volume) losePower() error {
	return v.open(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, shutdown, noLogFlush); err != nil {
			return fmt.Errorf("shut the file system in %s down: %w", v.dir, err)
		}
		return nil
	})
}

func (v *volume) sync() error {
	return v.open(func(fd int) error {
		if err := unix.Syncfs(fd); err != nil {
			return fmt.Errorf("sync the file system in %s: %w", v.dir, err)
		}
		return nil
	})
}

func (v *volume) open(use func(fd int) error) error {
	dir, err := os.Open(v.dir)
	if err != nil {
		return err
	}
	return errors.Join(use(int(dir.Fd())), dir.Close())
}

// fill uses all free space; free releases it.
func (v *volume) fill() error {
	file, err := os.Create(v.ballast())
	if err != nil {
		return err
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for len(block) >= 4<<10 {
		if _, err := file.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (v *volume) free() error { return os.Remove(v.ballast()) }

func (v *volume) ballast() string { return filepath.Join(v.dir, "ballast") }

func execute(program string, args ...string) error {
	if output, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(output))
	}
	return nil
}
