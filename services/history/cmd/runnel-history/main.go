// Command runnel-history runs the history service over a SQLite file or PostgreSQL. With PostgreSQL any number may run.
package main

import (
	"context"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/process"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/services/history"
)

type config struct {
	// History does not speak to NATS; the number of partitions has its name there, and must be the same in all services.
	NATS struct {
		Partitions int `help:"Number of partitions. Fixed for the life of an installation." default:"16"`
	} `embed:"" prefix:"nats."`
	History history.Config `embed:"" prefix:"history."`
	Process process.Config `embed:"" set:"rpc_listen=127.0.0.1:9000" set:"admin_listen=127.0.0.1:9090"` //nolint:staticcheck // kong takes several
}

func main() {
	var cfg config
	settings.Parse("runnel-history", "Stores the logs of conversations, cursors, and the watermark and lease of each partition.", &cfg)
	process.Main("runnel-history", cfg.Process, cfg.assemble)
}

func (cfg config) assemble(ctx context.Context, p *process.Process) error {
	tel := p.Telemetry
	store, err := history.Open(ctx, cfg.History, cfg.NATS.Partitions, tel.Log)
	if err != nil {
		return err
	}
	p.AtEnd(store.Close)
	p.Check("database", store.Ping)
	historyv1.RegisterHistoryServiceServer(p.Server, history.New(cfg.History, store, tel.Log, tel.Registry))
	p.StatusPage("runnel-history", statuspage.HistoryCharts())
	return nil
}
