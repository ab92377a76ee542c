//go:build unix

package reserve

import (
	"os"
	"syscall"
)

// lock locks a file for this process. The kernel releases the lock when the process ends, even after a crash.
func lock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
