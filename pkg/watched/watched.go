// Package watched holds what was read from files, and reads it again when the files change: a secret, a key or a certificate
// is replaced by replacing its file, without a restart.
//
// It notices a change when the content is needed, at most once a second. There is no goroutine to start or stop. New files
// that cannot be used (half written, expired, empty) are reported once, and the content before them stays in force. Links are
// followed, which is how Kubernetes replaces a secret.
//
// It knows nothing about what the files hold: the caller reads and checks them.
package watched

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// recheck is the shortest time between two looks at the files.
const recheck = time.Second

// Config says what to read. Read is required.
type Config[T any] struct {
	// Paths are the files. If there are none, the content is read once and never changes.
	Paths []string
	// Read reads the files.
	Read func() (T, error)
	// Accept may refuse a content that replaces another one. It is not called for the first content. Defaults to none.
	Accept func(T) error
	// Replaced is called after a content replaced another one, and Refused with the reason why the one in force stays. Both
	// are called while Current waits, so they must not call it. They default to doing nothing.
	Replaced func(T)
	Refused  func(error)
}

// Files is the content of some files. It is safe for concurrent use.
type Files[T any] struct {
	cfg Config[T]

	mu      sync.Mutex
	content T
	seen    []os.FileInfo // the files that content was read from
	refused []os.FileInfo // the files that were reported as unusable
	checked time.Time
}

// Load reads the files for the first time; files that cannot be used are an error then.
func Load[T any](cfg Config[T]) (*Files[T], error) {
	f := &Files[T]{cfg: cfg}
	seen, err := f.look()
	if err != nil {
		return nil, err
	}
	if f.content, err = cfg.Read(); err != nil {
		return nil, err
	}
	f.seen, f.checked = seen, time.Now()
	return f, nil
}

// Current returns the content in force, after a look at the files if the last one was a second ago.
func (f *Files[T]) Current() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if len(f.cfg.Paths) == 0 || now.Sub(f.checked) < recheck {
		return f.content
	}
	f.checked = now
	files, err := f.look() // before reading: what is written meanwhile is a change the next time
	if err == nil && same(files, f.seen) {
		return f.content
	}
	var next T
	if err == nil {
		next, err = f.cfg.Read()
	}
	if err == nil && f.cfg.Accept != nil {
		err = f.cfg.Accept(next)
	}
	if err != nil {
		// Tried again every time, since files are often replaced one after the other; reported once.
		if f.refused == nil || !same(files, f.refused) {
			f.refused = slices.Clone(files)
			if f.cfg.Refused != nil {
				f.cfg.Refused(err)
			}
		}
		return f.content
	}
	f.content, f.seen, f.refused = next, files, nil
	if f.cfg.Replaced != nil {
		f.cfg.Replaced(next)
	}
	return f.content
}

// look returns the state of the files, with nil for each that is not there.
func (f *Files[T]) look() (files []os.FileInfo, err error) {
	files = make([]os.FileInfo, 0, len(f.cfg.Paths))
	for _, path := range f.cfg.Paths {
		info, failed := os.Stat(path)
		err = errors.Join(err, failed)
		files = append(files, info)
	}
	return files, err
}

func same(a, b []os.FileInfo) bool {
	return slices.EqualFunc(a, b, func(x, y os.FileInfo) bool {
		if x == nil || y == nil {
			return x == nil && y == nil
		}
		return os.SameFile(x, y) && x.Size() == y.Size() && x.ModTime().Equal(y.ModTime())
	})
}

// maxSecretBytes is far above any secret and keeps a wrong path, to a device or a log, from being read whole.
const maxSecretBytes = 64 << 10

// ReadSecret reads a file that holds one secret. Editors and `echo` end files with a line break that is not part of the secret.
func ReadSecret(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxSecretBytes+1))
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	if len(data) > maxSecretBytes {
		return "", errors.New(path + " is too large for a secret")
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}
