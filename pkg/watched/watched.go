// Package watched keeps the content of files, and reads the files again when they change. To replace a secret, a key or a
// certificate, replace its file; no restart is needed.
//
// It checks for changes when the content is used, at most once a second. There is no goroutine to start or stop. If new
// files cannot be used (half written, expired, empty), this is reported once, and the previous content stays in use.
// Symbolic links are followed, because Kubernetes replaces a secret by changing a link.
//
// It does not interpret the files: the caller reads and checks them.
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

// recheck is the minimum time between two checks of the files.
const recheck = time.Second

// Config describes the files and how to read them. Read is required.
type Config[T any] struct {
	// Paths are the files. If there are none, the content is read once and never changes.
	Paths []string
	// Read reads the files.
	Read func() (T, error)
	// Accept may refuse new content that would replace the current content. It is not called for the first content.
	// Defaults to accepting all content.
	Accept func(T) error
	// Replaced is called after new content has replaced the old. Refused is called with the reason why new content was
	// not used. Both are called while Current waits, so they must not call Current. They default to doing nothing.
	Replaced func(T)
	Refused  func(error)
}

// Files keeps the current content of some files. It is safe for concurrent use.
type Files[T any] struct {
	cfg Config[T]

	mu      sync.Mutex
	content T
	seen    []os.FileInfo // the state of the files when the content was read
	refused []os.FileInfo // the state of the files that were reported as unusable
	checked time.Time
}

// Load reads the files for the first time; files that cannot be used are an error.
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

// Current returns the current content. If the last check was at least a second ago, it first checks the files.
func (f *Files[T]) Current() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if len(f.cfg.Paths) == 0 || now.Sub(f.checked) < recheck {
		return f.content
	}
	f.checked = now
	files, err := f.look() // before reading: a later write then counts as a change at the next check
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
		// Reading is tried again at every check, because files are often replaced one after the other. The failure is
		// reported once.
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

// look returns the state of the files, with nil for each missing file.
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

// maxSecretBytes is far above the size of any secret. It prevents reading a whole device or log if the path is wrong.
const maxSecretBytes = 64 << 10

// ReadSecret reads a file that contains one secret. It removes a line break at the end, which editors and `echo` add.
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
