package main

import (
	"context"
	"os"

	"github.com/runnelhq/runnel/pkg/process"
	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/services/history"
)

// serveCommand runs the service.
type serveCommand struct {
	Process process.Config `embed:"" set:"rpc_listen=127.0.0.1:9000" set:"admin_listen=127.0.0.1:9090"` //nolint:staticcheck // kong takes several
}

// Run serves until the process receives a stop signal, or something fails.
func (s *serveCommand) Run(ctx context.Context, d *database) error {
	if d.History.Database == "" {
		return history.ErrNoDatabase
	}
	return process.Run(ctx, "runnel-history", s.Process, os.Stderr, d.assemble)
}

func (d *database) assemble(ctx context.Context, p *process.Process) error {
	tel := p.Telemetry
	store, err := history.Open(ctx, d.History, d.NATS.Partitions, tel.Log)
	if err != nil {
		return err
	}
	p.AtEnd(store.Close)
	server := history.New(d.History, store, tel.Log, tel.Registry)
	p.Go(func(ctx context.Context) error {
		<-ctx.Done()
		return server.Close()
	})
	server.Register(p.Server)
	for name, check := range server.Checks() {
		p.Check(name, check)
	}
	p.StatusPage(statuspage.Config{Title: "runnel-history", Stages: history.Stages(), Charts: history.Charts()})
	return nil
}
