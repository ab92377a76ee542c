//go:build unix

package reserve

import (
	"os"
	"syscall"
)

// lock takes a file for this process. The kernel gives it back when the process ends, however it ends.
func lock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
