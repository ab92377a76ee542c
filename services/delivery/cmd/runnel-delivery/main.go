// Command runnel-delivery runs one delivery worker against a NATS cluster and the history service. Any number may run;
// they share the partitions.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/delivery"
)

type config struct {
	History struct {
		Address string `help:"Address of the history service's gRPC server." default:"127.0.0.1:9001"`
	} `embed:"" prefix:"history."`
	NATS      broker.Config         `embed:"" prefix:"nats."`
	Delivery  delivery.Config       `embed:"" prefix:"delivery."`
	RPC       rpc.ServerConfig      `embed:"" prefix:"rpc."`
	Admin     telemetry.AdminConfig `embed:"" prefix:"admin."`
	Telemetry telemetry.Config      `embed:"" prefix:"telemetry."`
}

func main() {
	var cfg config
	settings.Parse("runnel-delivery", "Puts commands in order, has them committed, and sees them delivered.", &cfg,
		kong.Vars{"rpc_listen": "127.0.0.1:9002", "admin_listen": "127.0.0.1:9092"})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "runnel-delivery:", err)
		os.Exit(1) //nolint:gocritic // stop only restores the signal handlers, which end with the process
	}
}

func run(ctx context.Context, cfg config) error {
	tel, err := telemetry.Start(ctx, "runnel-delivery", cfg.Telemetry, os.Stderr)
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = tel.Shutdown(last) // reported by the exporter itself
	}()
	nc, err := broker.Connect(cfg.NATS, "runnel-delivery", tel.Log)
	if err != nil {
		return err
	}
	defer nc.Close()
	history, err := rpc.Dial(cfg.History.Address, tel)
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
