// Command runnel-gateway terminates client connections.
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

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/gateway"
)

type config struct {
	HistoryAddress string `help:"gRPC address of the history service; dns:///name spreads calls over several." default:"127.0.0.1:9000"`

	NATS      broker.Config         `embed:"" prefix:"nats."`
	Gateway   gateway.Config        `embed:"" prefix:"gateway."`
	Auth      auth.Config           `embed:"" prefix:"auth."`
	RPC       rpc.ServerConfig      `embed:"" prefix:"rpc." set:"rpc_listen=127.0.0.1:9002"`
	Admin     telemetry.AdminConfig `embed:"" prefix:"admin." set:"admin_listen=127.0.0.1:9092"`
	Telemetry telemetry.Config      `embed:"" prefix:"telemetry."`
}

func main() {
	var cfg config
	settings.Parse("runnel-gateway", "Terminates client connections: authenticates them, takes their commands to NATS and pushes events to them.", &cfg)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runnel-gateway:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) (err error) {
	tel, err := telemetry.Start(ctx, "runnel-gateway", cfg.Telemetry, os.Stderr)
	if err != nil {
		return fmt.Errorf("start telemetry: %w", err)
	}
	defer func() {
		flush, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		err = errors.Join(err, tel.Shutdown(flush))
	}()
	verifier, err := auth.New(cfg.Auth, auth.Options{Log: tel.Log})
	if err != nil {
		return fmt.Errorf("set up authentication: %w", err)
	}
	defer verifier.Close()
	nc, err := broker.Connect(cfg.NATS, "runnel-gateway", tel.Log, tel.Registry)
	if err != nil {
		return err
	}
	defer nc.Close()
	history, err := rpc.Dial(cfg.HistoryAddress, rpc.ClientConfig{Service: rpc.RoleHistory, TLS: cfg.RPC.TLS}, tel)
	if err != nil {
		return fmt.Errorf("dial the history service: %w", err)
	}
	defer func() { err = errors.Join(err, history.Close()) }()
	gw, err := gateway.New(cfg.Gateway, gateway.Deps{
		NATS: nc, Partitions: cfg.NATS.Partitions, History: historyv1.NewHistoryServiceClient(history), Verifier: verifier,
		Log: tel.Log, Registerer: tel.Registry, TracerProvider: tel.TracerProvider,
	})
	if err != nil {
		return err
	}
	server, err := rpc.NewServer(cfg.RPC, tel)
	if err != nil {
		return err
	}
	gatewayv1.RegisterGatewayServiceServer(server, gw.Server())
	admin, err := telemetry.NewAdmin(cfg.Admin, tel, gw.Checks())
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { admin.SetReady(false) })
	group.Go(func() error { return gw.Run(ctx) })
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { return admin.Run(ctx) })
	return group.Wait()
}
