package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/runnelhq/runnel/pkg/postgrestest"
)

// Postgres is a private PostgreSQL server with its own data directory.
type Postgres struct {
	dir string

	mu     sync.Mutex
	server *postgrestest.Server // nil if it does not run
	url    string
}

// RunPostgres starts a server with its data in dir.
func RunPostgres(ctx context.Context, dir string) (*Postgres, error) {
	p := &Postgres{dir: dir}
	if err := p.start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Postgres) start(ctx context.Context) error {
	server, err := postgrestest.Run(ctx, p.dir)
	if err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server, p.url = server, server.URL()
	return nil
}

// syncNothing makes the server acknowledge writes without syncing them, after its next restart.
func (p *Postgres) syncNothing(ctx context.Context) error {
	settings, err := os.OpenFile(filepath.Join(p.dir, "data", "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("change the settings of PostgreSQL: %w", err)
	}
	_, err = settings.WriteString("fsync = off\nfull_page_writes = off\n")
	if err = errors.Join(err, settings.Close()); err != nil {
		return fmt.Errorf("change the settings of PostgreSQL: %w", err)
	}
	if err := p.Stop(); err != nil {
		return err
	}
	return p.Restart(ctx)
}

// URL returns the server's URL, which stays the same over restarts.
func (p *Postgres) URL() string { return p.url }

// Name returns "postgres".
func (p *Postgres) Name() string { return "postgres" }

// Restart implements Part.
func (p *Postgres) Restart(ctx context.Context) error {
	for {
		err := p.start(ctx)
		if err == nil {
			return nil
		}
		if Sleep(ctx, restartPause) != nil {
			return err
		}
	}
}

// take returns the running server, and marks the part as stopped; nil if it is stopped.
func (p *Postgres) take() *postgrestest.Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	server := p.server
	p.server = nil
	return server
}

// Stop implements Part.
func (p *Postgres) Stop() error {
	p.Resume()
	if server := p.take(); server != nil {
		return server.Stop()
	}
	return nil
}

// Kill implements Part.
func (p *Postgres) Kill() {
	if server := p.take(); server != nil {
		server.Kill()
	}
}

func (p *Postgres) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return 0
	}
	return p.server.PID()
}

// Pause implements Part.
func (p *Postgres) Pause() {
	if pid := p.pid(); pid != 0 {
		pauseFamily(pid)
	}
}

// Resume implements Part.
func (p *Postgres) Resume() {
	if pid := p.pid(); pid != 0 {
		resumeFamily(pid)
	}
}

// Usage implements Part.
func (p *Postgres) Usage() (Usage, error) {
	pid := p.pid()
	if pid == 0 {
		return Usage{}, fmt.Errorf("%s is not running", p.Name())
	}
	return usage(pid)
}
