package launch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Command describes how a program is run.
type Command struct {
	// Name is the unique name of the process for messages and file names.
	Name string
	// Path is the program. Args are its arguments. Env is added to the environment.
	Path string
	Args []string
	Env  []string
	// Log is the file to which the program's output is appended.
	Log string
	// Ready is a URL that is polled until it answers 200, for example http://127.0.0.1:9090/readyz. If it is empty, the
	// process counts as ready at once.
	Ready string
	// Data is the program's data directory; empty if it has none.
	Data string
	// Crashed is called if the process ends by itself after it was ready. May be nil.
	Crashed func(name string, err error)
}

// Process is a program that can be started repeatedly.
//
//	ended ──Restart──▶ starting ──ready──▶ running ──Stop, Kill, or by itself──▶ ended
//	                     ▲    │                │  ▲
//	                     └────┘ ended early    ▼  │
//	                                          paused
type Process struct {
	Command

	mu      sync.Mutex
	process *os.Process
	ended   chan struct{} // closed when the process has ended and was waited for
	state   *os.ProcessState
	ready   bool
	asked   bool // Stop or Kill was called
}

// Run starts a program and waits until it is ready. If the program ends instead, the error contains the end of its log.
func Run(ctx context.Context, command Command) (*Process, error) {
	p := &Process{Command: command}
	if err := p.start(ctx); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Name returns Command.Name.
func (p *Process) Name() string { return p.Command.Name }

// Restart implements Part.
func (p *Process) Restart(ctx context.Context) error {
	for {
		err := p.start(ctx)
		if err == nil {
			return nil
		}
		p.Kill()
		if Sleep(ctx, restartPause) != nil {
			return fmt.Errorf("restart: %w", err)
		}
	}
}

func (p *Process) start(ctx context.Context) error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.Name(), err)
	}
	defer log.Close() // the process has its own descriptor
	// Not bound to ctx: the process runs until Stop or Kill.
	command := exec.Command(p.Path, p.Args...)
	command.Env = append(os.Environ(), p.Env...)
	command.Stdout, command.Stderr = log, log
	// A separate process group, so that an interrupt at the terminal reaches only this program, which stops the parts in
	// order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name(), err)
	}
	ended := make(chan struct{})
	p.mu.Lock()
	p.process, p.ended, p.state, p.ready, p.asked = command.Process, ended, nil, false, false
	p.mu.Unlock()
	go func() {
		err := command.Wait()
		p.mu.Lock()
		p.state = command.ProcessState
		crashed := p.ready && !p.asked
		p.mu.Unlock()
		close(ended)
		if crashed && p.Crashed != nil {
			p.Crashed(p.Name(), fmt.Errorf("%w; the end of its log:\n%s", errors.Join(errEnded, err), tail(p.Log)))
		}
	}()
	if err := p.awaitReady(ctx, ended); err != nil {
		return fmt.Errorf("%s: %w; the end of its log:\n%s", p.Name(), err, tail(p.Log))
	}
	p.mu.Lock()
	p.ready = true
	p.mu.Unlock()
	return nil
}

var errEnded = errors.New("it ended by itself")

func (p *Process) awaitReady(ctx context.Context, ended <-chan struct{}) error {
	if p.Ready == "" {
		return nil
	}
	var last error
	for {
		if last = ask(ctx, p.Ready); last == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%w before it was ready: %s", errEnded, p.state)
		default:
		}
		if err := Sleep(ctx, pollInterval); err != nil {
			return fmt.Errorf("it is not ready: %w: %w", err, last)
		}
	}
}

// ask returns an error unless a URL answers 200.
func ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}

// client keeps no connections: parts start and stop, and no goroutine of a connection may outlive this program.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Stop implements Part.
func (p *Process) Stop() error { return p.end(syscall.SIGTERM, stopTimeout) }

// end sends a signal that requests the end, and waits for the end.
func (p *Process) end(signal os.Signal, timeout time.Duration) error {
	process, ended := p.ending()
	if process == nil {
		return nil
	}
	_ = process.Signal(syscall.SIGCONT) // the process may be paused
	_ = process.Signal(signal)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s did not end within %v and was killed", p.Name(), timeout)
	}
	if !p.state.Success() {
		return fmt.Errorf("%s ended with %s; the end of its log:\n%s", p.Name(), p.state, tail(p.Log))
	}
	return nil
}

// Kill implements Part.
func (p *Process) Kill() {
	process, ended := p.ending()
	if process == nil {
		return
	}
	_ = process.Kill()
	<-ended
}

// ending records that the process is being ended on purpose, and returns it; nil if there is no process.
func (p *Process) ending() (*os.Process, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = true
	if p.process == nil || p.state != nil {
		return nil, nil
	}
	return p.process, p.ended
}

// Flag returns the value of a flag with which a program was started; empty if it was not set.
func (p *Process) Flag(name string) string {
	for _, arg := range p.Args {
		if value, found := strings.CutPrefix(arg, "--"+name+"="); found {
			return value
		}
	}
	return ""
}

// PID returns the process id; 0 if the process does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil || p.state != nil {
		return 0
	}
	return p.process.Pid
}

// Pause implements Part.
func (p *Process) Pause() {
	if pid := p.PID(); pid != 0 {
		pauseFamily(pid)
	}
}

// Resume implements Part.
func (p *Process) Resume() {
	if pid := p.PID(); pid != 0 {
		resumeFamily(pid)
	}
}

// Usage implements Part.
func (p *Process) Usage() (Usage, error) {
	pid := p.PID()
	if pid == 0 {
		return Usage{}, fmt.Errorf("%s is not running", p.Name())
	}
	return usage(pid)
}

// Metrics reads the process's /metrics. It returns values by the name of the metric with its labels. The process must
// have a Ready URL.
func (p *Process) Metrics(ctx context.Context) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(p.Ready, "/readyz")+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read the metrics of %s: %w", p.Name(), err)
	}
	defer response.Body.Close()
	samples := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		line := lines.Text()
		if end := strings.LastIndexByte(line, ' '); end > 0 && line[0] != '#' {
			if value, err := strconv.ParseFloat(line[end+1:], 64); err == nil {
				samples[line[:end]] = value
			}
		}
	}
	return samples, lines.Err()
}

// Profile reads a profile of the process as text. The process must be a service that was started with --admin.pprof.
func (p *Process) Profile(ctx context.Context, name string) ([]byte, error) {
	address := strings.TrimSuffix(p.Ready, "/readyz") + "/debug/pprof/" + name + "?debug=1"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read a profile of %s: %w", p.Name(), err)
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

func tail(path string) []byte {
	text, _ := os.ReadFile(path)
	const most = 2000
	return text[max(0, len(text)-most):]
}
