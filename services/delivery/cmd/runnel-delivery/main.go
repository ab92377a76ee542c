// Command runnel-delivery runs one delivery worker against a NATS cluster and the history service. Any number may run;
// they share the partitions.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/delivery"
)

type config struct {
	HistoryAddress string `help:"gRPC address of the history service; dns:///name spreads calls over several." default:"127.0.0.1:9000"`

	NATS      broker.Config         `embed:"" prefix:"nats."`
	Delivery  delivery.Config       `embed:"" prefix:"delivery."`
	RPC       rpc.ServerConfig      `embed:"" prefix:"rpc." set:"rpc_listen=127.0.0.1:9001"`
	Admin     telemetry.AdminConfig `embed:"" prefix:"admin." set:"admin_listen=127.0.0.1:9091"`
	Telemetry telemetry.Config      `embed:"" prefix:"telemetry."`
}

func main() {
	var cfg config
	settings.Parse("runnel-delivery", "Puts commands in order, has them committed, and sees them delivered.", &cfg)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runnel-delivery:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) (err error) {
	tel, err := telemetry.Start(ctx, "runnel-delivery", cfg.Telemetry, os.Stderr)
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		err = errors.Join(err, tel.Shutdown(last))
	}()
	nc, err := broker.Connect(cfg.NATS, "runnel-delivery", tel.Log, tel.Registry)
	if err != nil {
		return err
	}
	defer nc.Close()
	history, err := rpc.Dial(cfg.HistoryAddress, rpc.ClientConfig{Service: rpc.RoleHistory, TLS: cfg.RPC.TLS}, tel)
	if err != nil {
		return err
	}
	defer func() { _ = history.Close() }()
	worker, err := delivery.New(cfg.Delivery, delivery.Deps{
		NATS: nc, Broker: cfg.NATS, History: historyv1.NewHistoryServiceClient(history),
		Log: tel.Log, Registerer: tel.Registry, TracerProvider: tel.TracerProvider,
	})
	if err != nil {
		return err
	}
	server, err := rpc.NewServer(cfg.RPC, tel)
	if err != nil {
		return err
	}
	worker.Register(server)
	admin, err := telemetry.NewAdmin(cfg.Admin, tel, map[string]telemetry.Check{"delivery": worker.Check})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return worker.Run(ctx) })
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { return admin.Run(ctx) })
	return group.Wait()
}
