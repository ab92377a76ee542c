package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	pollInterval = 50 * time.Millisecond
	stopTimeout  = 20 * time.Second
	logTail      = 3000
)

// process is a running program. It belongs to the process group of the test. An interrupt at the terminal therefore
// reaches both the test and the program, and neither outlives the other.
type process struct {
	name  string
	log   string
	os    *os.Process
	ended chan struct{} // closed after the process has ended
	err   error         // the exit error of the process; valid after ended is closed
}

// start runs a program that logs to dir/name.log. It does not wait until the program is ready.
func start(dir, name, path string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", name, err)
	}
	defer log.Close()                      // the process has its own copy
	command := exec.Command(path, args...) //nolint:gosec,noctx // the test's own programs, which live until stop
	command.Dir, command.Stdout, command.Stderr = dir, log, log
	// The program has its own home directory, because kwok and the other programs read configuration from it.
	command.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin", "TMPDIR=" + dir}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.os = command.Process
	go func() {
		p.err = command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// await polls ready until it returns nil. If the process ends first, await returns an error with the end of the log.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		last := ready(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w\n%s", p.name, ctx.Err(), last, p.tail())
		case <-ticker.C:
		}
	}
}

// stop ends the process and waits for it. It returns an error if the process had ended earlier, or takes too long and is
// killed.
func (p *process) stop() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended by itself: %w\n%s", p.name, p.err, p.tail())
	default:
	}
	_ = p.os.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
		_ = p.os.Kill()
		<-p.ended
		return fmt.Errorf("%s did not end within %v and was killed", p.name, stopTimeout)
	}
}

func (p *process) tail() string {
	text, _ := os.ReadFile(p.log) // failing to read the log must not hide the error that the log would explain
	return string(text[max(0, len(text)-logTail):])
}
