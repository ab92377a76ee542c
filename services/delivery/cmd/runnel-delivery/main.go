// Command runnel-delivery runs one delivery worker against a NATS cluster and the history service. Any number of workers
// may run; they share the partitions.
package main

import (
	"context"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/process"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/services/admin"
	"github.com/runnelhq/runnel/services/delivery"
)

type config struct {
	HistoryAddress string `help:"gRPC address of the history service; dns:///name spreads calls over several." default:"127.0.0.1:9000"`

	NATS     broker.Config   `embed:"" prefix:"nats."`
	Delivery delivery.Config `embed:"" prefix:"delivery."`
	Process  process.Config  `embed:"" set:"rpc_listen=127.0.0.1:9001" set:"admin_listen=127.0.0.1:9091"` //nolint:staticcheck // kong takes several
}

func main() {
	var cfg config
	settings.Parse("runnel-delivery", "Orders commands, commits them through the history service, and publishes their events.", &cfg)
	process.Main("runnel-delivery", cfg.Process, cfg.assemble)
}

func (cfg config) assemble(_ context.Context, p *process.Process) error {
	tel := p.Telemetry
	nc, err := broker.Connect(cfg.NATS, "runnel-delivery", tel.Log, tel.Registry)
	if err != nil {
		return err
	}
	p.AtEnd(func() error { nc.Close(); return nil })
	store, err := p.Dial(cfg.HistoryAddress, rpc.RoleHistory)
	if err != nil {
		return err
	}
	worker, err := delivery.New(cfg.Delivery, delivery.Deps{
		NATS: nc, Broker: cfg.NATS, History: historyv1.NewHistoryServiceClient(store),
		Log: tel.Log, Registerer: tel.Registry, TracerProvider: tel.TracerProvider,
	})
	if err != nil {
		return err
	}
	worker.Register(p.Server)
	operators := admin.New(admin.Deps{
		History: historyv1.NewHistoryServiceClient(store), Fleet: worker.Fleet(), Submit: worker.Do, Bus: bus.OverNATS{Conn: nc},
		Partitions: cfg.NATS.Partitions, Log: tel.Log.With("worker", worker.Name()),
	})
	operators.Register(p.Server)
	for name, check := range worker.Checks() {
		p.Check(name, check)
	}
	p.StatusPage(statuspage.Config{
		Title: "runnel-delivery " + worker.Name(), Stages: delivery.Stages(), Charts: delivery.Charts(),
		Tables: []statuspage.Source{operators.PartitionTable(), operators.DeadLetterTable()},
	})
	p.Go(worker.Run)
	return nil
}
