// Command runnel-history runs the history service over a SQLite file or PostgreSQL. With PostgreSQL any number may run.
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

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/history"
)

type config struct {
	// History does not speak to NATS; the number of partitions has its name there, and must be the same in all services.
	NATS struct {
		Partitions int `help:"Number of partitions. Fixed for the life of an installation." default:"16"`
	} `embed:"" prefix:"nats."`
	History   history.Config        `embed:"" prefix:"history."`
	RPC       rpc.ServerConfig      `embed:"" prefix:"rpc." set:"rpc_listen=127.0.0.1:9000"`
	Admin     telemetry.AdminConfig `embed:"" prefix:"admin." set:"admin_listen=127.0.0.1:9090"`
	Telemetry telemetry.Config      `embed:"" prefix:"telemetry."`
}

func main() {
	var cfg config
	settings.Parse("runnel-history", "Stores the logs of conversations, cursors, and the watermark and lease of each partition.", &cfg)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runnel-history:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) (err error) {
	tel, err := telemetry.Start(ctx, "runnel-history", cfg.Telemetry, os.Stderr)
	if err != nil {
		return fmt.Errorf("start telemetry: %w", err)
	}
	defer func() {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		err = errors.Join(err, tel.Shutdown(flush))
	}()
	store, err := history.Open(ctx, cfg.History, cfg.NATS.Partitions, tel.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	server, err := rpc.NewServer(cfg.RPC, tel)
	if err != nil {
		return err
	}
	historyv1.RegisterHistoryServiceServer(server, history.New(cfg.History, store, tel.Log, tel.Registry))
	admin, err := telemetry.NewAdmin(cfg.Admin, tel, map[string]telemetry.Check{"database": store.Ping})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { admin.SetReady(false) })
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { return admin.Run(ctx) })
	return group.Wait()
}
