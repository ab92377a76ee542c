// Command runnel-gateway terminates client connections.
package main

import (
	"context"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/process"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/services/gateway"
	"github.com/runnelhq/runnel/services/gateway/operator"
)

type config struct {
	HistoryAddress string `help:"gRPC address of the history service; dns:///name spreads calls over several." default:"127.0.0.1:9000"`

	NATS    broker.Config  `embed:"" prefix:"nats."`
	Gateway gateway.Config `embed:"" prefix:"gateway."`
	Auth    auth.Config    `embed:"" prefix:"auth."`
	Process process.Config `embed:"" set:"rpc_listen=127.0.0.1:9002" set:"admin_listen=127.0.0.1:9092"` //nolint:staticcheck // kong takes several
}

func main() {
	var cfg config
	settings.Parse("runnel-gateway", "Terminates client connections: authenticates them, publishes their commands to NATS and pushes events to them.", &cfg)
	process.Main("runnel-gateway", cfg.Process, cfg.assemble)
}

func (cfg config) assemble(_ context.Context, p *process.Process) error {
	tel := p.Telemetry
	verifier, err := auth.New(cfg.Auth, auth.Options{Log: tel.Log})
	if err != nil {
		return fmt.Errorf("set up authentication: %w", err)
	}
	p.AtEnd(func() error { verifier.Close(); return nil })
	nc, err := broker.Connect(cfg.NATS, "runnel-gateway", tel.Log, tel.Registry)
	if err != nil {
		return err
	}
	p.AtEnd(func() error { nc.Close(); return nil })
	store, err := p.Dial(cfg.HistoryAddress, rpc.RoleHistory)
	if err != nil {
		return err
	}
	gw, err := gateway.New(cfg.Gateway, gateway.Deps{
		NATS: nc, Partitions: cfg.NATS.Partitions, History: historyv1.NewHistoryServiceClient(store), Verifier: verifier,
		Log: tel.Log, Registerer: tel.Registry, TracerProvider: tel.TracerProvider,
	})
	if err != nil {
		return err
	}
	gw.Server().Register(p.Server)
	for name, check := range gw.Checks() {
		p.Check(name, check)
	}
	p.Admin.Handle("/debug/", gw.Debug())
	p.StatusPage(statuspage.Config{
		Title: "runnel-gateway " + gw.ID(), Stages: operator.Stages(), Charts: operator.Charts(),
		Tables: []statuspage.Source{gw.Server().ConnectionTable()},
	})
	p.Go(gw.Run)
	return nil
}
