// Package reserve chooses loopback addresses for processes and servers that a test starts later. A free port found by
// listening on port 0 does not stay free: the kernel may give it to the next outgoing connection, or to another test.
package reserve

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// lowest and highest bound the ports. From 32768 on, kernels choose ports for outgoing connections and for listeners on
// port 0.
const lowest, highest = 15000, 32000

// tries is the number of ports that are tried.
const tries = 1000

// locks keeps the ports of this process locked until it ends.
var locks struct {
	sync.Mutex

	held map[int]*os.File
}

// Address returns a loopback address on which no process listens. Until the calling process ends, no other call on this
// machine returns the same address.
func Address() (string, error) {
	port, err := Port()
	if err != nil {
		return "", err
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
}

// Port returns the port of such a loopback address.
func Port() (int, error) {
	dir := filepath.Join(os.TempDir(), "runnel-ports")
	// All users who run tests on this machine share the directory.
	if err := os.Mkdir(dir, 0o777); err == nil { //nolint:gosec // all users share it
		err = os.Chmod(dir, 0o777) //nolint:gosec // all users share it, whatever the umask of this process
		if err != nil {
			return 0, fmt.Errorf("reserve a port: %w", err)
		}
	} else if !errors.Is(err, os.ErrExist) {
		return 0, fmt.Errorf("reserve a port: %w", err)
	}
	for range tries {
		port := lowest + rand.IntN(highest-lowest)
		if reserve(dir, port) && free(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("reserve a port: none of %d was free", tries)
}

// reserve returns false if another process has the port, or if the port was returned before.
func reserve(dir string, port int) bool {
	locks.Lock()
	defer locks.Unlock()
	if locks.held[port] != nil {
		return false
	}
	file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o666) //nolint:gosec // all users share it
	if err != nil {
		return false // another user owns the file
	}
	if lock(file) != nil {
		_ = file.Close()
		return false
	}
	if locks.held == nil {
		locks.held = map[int]*os.File{}
	}
	locks.held[port] = file
	return true
}

// free reports whether no process listens on a port.
func free(port int) bool {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	return err == nil && listener.Close() == nil
}
