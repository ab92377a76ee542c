package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotInstalled means that PostgreSQL is not installed; its text tells how to install it.
var ErrNotInstalled = errors.New("PostgreSQL is not installed: install it (Debian: apt-get install postgresql; macOS: brew install postgresql), " +
	"put its initdb and postgres into PATH, or set " + Env + " to a server on which databases may be created")

const (
	superuser    = "runnel"
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// Server is a running PostgreSQL server. Its data is kept when it stops: Run on the same directory starts it again, even
// after Kill.
type Server struct {
	process *exec.Cmd
	exited  chan struct{} // closed when the process has ended and was waited for
	exitErr error         // valid after exited is closed
	port    int
	stop    sync.Once
}

// Run starts a PostgreSQL server on a free loopback port and waits until it answers. Its data is in dir, which is
// initialised if it contains no data. Run again on the same directory, the server has the same URL. PostgreSQL refuses to
// run as root. For root, it runs as the user postgres or nobody, who becomes the owner of dir/data. Its log is
// dir/postgres.log.
func Run(ctx context.Context, dir string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the directory %q: %w", dir, err)
	}
	owner := unprivileged()
	data := filepath.Join(dir, "data")
	if err := initialise(ctx, bin, data, owner); err != nil {
		return nil, err
	}
	port, err := portOf(ctx, dir)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "postgres.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer func() { _ = log.Close() }() // the process has its own descriptor
	// Not bound to ctx: the server runs until Stop or Kill.
	process := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200")
	process.Stdout, process.Stderr = log, log
	process.Dir = dir
	if owner != nil {
		process.Dir = data
	}
	process.SysProcAttr = attributes(owner)
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	s := &Server{process: process, exited: make(chan struct{}), port: port}
	go func() {
		s.exitErr = process.Wait()
		close(s.exited)
	}()
	if err := s.ready(ctx); err != nil {
		s.Kill()
		return nil, fmt.Errorf("%w; the end of its log:\n%s", err, tail(log.Name()))
	}
	return s, nil
}

// URL returns the URL of the server for its superuser.
func (s *Server) URL() string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres?sslmode=disable", superuser, s.port)
}

// PID returns the server's process id, for pausing the server or reading its resource usage. It is the parent of the
// server's other processes.
func (s *Server) PID() int { return s.process.Process.Pid }

// Stop shuts the server down like an operator: it ends connections and waits. It may be called more than once.
func (s *Server) Stop() error {
	s.stop.Do(func() { _ = s.process.Process.Signal(syscall.SIGINT) }) // "fast" shutdown
	select {
	case <-s.exited:
		return s.exitErr
	case <-time.After(stopTimeout):
		s.Kill()
		return fmt.Errorf("PostgreSQL did not stop within %s and was killed", stopTimeout)
	}
}

// Kill ends the server and its children without warning, like a crash of the machine, and waits.
func (s *Server) Kill() {
	pid := s.process.Process.Pid
	// Stop the server process first, so that it neither starts more children nor notices their end. Children lead their
	// own process groups.
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	children := childrenOf(pid)
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	<-s.exited
	// A child that has not fully ended still uses the shared memory, so the next start would fail.
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(stopTimeout); slices.ContainsFunc(children, running) && time.Now().Before(deadline); {
		<-tick.C
	}
}

// childrenOf lists a process's children if the system has /proc. On other systems the children end by themselves when
// they notice the loss of their parent.
func childrenOf(pid int) (children []int) {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for field := range strings.FieldsSeq(string(list)) {
		if child, err := strconv.Atoi(field); err == nil {
			children = append(children, child)
		}
	}
	return children
}

// running reports whether a process exists and is not a zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, found := bytes.Cut(stat, []byte(") "))
	return found && len(state) > 0 && state[0] != 'Z'
}

// ready waits until the server answers.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.URL())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return fmt.Errorf("PostgreSQL ended at once: %w", s.exitErr)
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// binaries finds the directory of the newest installed server.
func binaries() (string, error) {
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is valid
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	if len(installed) > 0 {
		newest := slices.MaxFunc(installed, func(a, b string) int { return version(a) - version(b) })
		return filepath.Dir(newest), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", ErrNotInstalled
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", fmt.Errorf("find PostgreSQL's binaries: %w", err)
	}
	return filepath.Dir(path), nil
}

// unprivileged returns the user for running the server; nil for the current user.
func unprivileged() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(account.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(account.Gid, 10, 32)
		if errUID == nil && errGID == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}
		}
	}
	const nobody = 65534
	return &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}
}

func attributes(owner *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: owner, Setpgid: true}
}

// initialise creates a database cluster in data unless there is one. A killed server leaves a pid file, which does not
// prevent its next start: PostgreSQL sees that the process no longer exists.
func initialise(ctx context.Context, bin, data string, owner *syscall.Credential) error {
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		return nil
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make PostgreSQL's directory: %w", err)
	}
	if owner != nil {
		if err := os.Chown(data, int(owner.Uid), int(owner.Gid)); err != nil {
			return fmt.Errorf("give PostgreSQL its directory: %w", err)
		}
		// The server's user needs access to the directories above; temporary directories of tests do not allow it.
		for dir := filepath.Dir(data); dir != filepath.Dir(dir) && within(dir, os.TempDir()); dir = filepath.Dir(dir) {
			if info, err := os.Stat(dir); err == nil {
				_ = os.Chmod(dir, info.Mode().Perm()|0o011)
			}
		}
	}
	// --no-sync saves a second; the server's first checkpoint makes the cluster durable.
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", superuser, "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	initdb.SysProcAttr = attributes(owner)
	initdb.Dir = data
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initialise PostgreSQL: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// within reports whether dir lies below root.
func within(dir, root string) bool {
	rel, err := filepath.Rel(root, dir)
	return err == nil && filepath.IsLocal(rel) && rel != "."
}

// portOf returns the previous port of the server in dir, so that its URL stays the same over restarts, or a free port for
// a new server.
func portOf(ctx context.Context, dir string) (int, error) {
	path := filepath.Join(dir, "port")
	if text, err := os.ReadFile(path); err == nil {
		return strconv.Atoi(string(text))
	}
	port, err := freePort(ctx)
	if err != nil {
		return 0, err
	}
	return port, os.WriteFile(path, strconv.AppendInt(nil, int64(port), 10), 0o600)
}

// freePort finds a port on which no process listens. Another process may take the port before the server does; the server
// then fails to start and reports it.
func freePort(ctx context.Context) (int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}

func tail(path string) []byte {
	text, _ := os.ReadFile(path)
	const most = 2000
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return text
}
