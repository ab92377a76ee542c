package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/runnelhq/runnel/pkg/buildinfo"
	"github.com/runnelhq/runnel/pkg/memlimit"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/standalone"
)

// patience is the time after which the program states what it waits for.
const patience = 10 * time.Second

type serveCommand struct {
	standalone.Config `embed:""`
}

// Run serves until the process receives a stop signal.
func (s *serveCommand) Run(ctx context.Context) (err error) {
	begun := time.Now()
	tel, err := telemetry.Start(ctx, "runnel", s.Telemetry, os.Stderr)
	if err != nil {
		return fmt.Errorf("start telemetry: %w", err)
	}
	defer func() {
		flush, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		err = errors.Join(err, tel.Shutdown(flush))
	}()
	memlimit.Apply(tel.Log)
	server, err := standalone.New(ctx, s.Config, tel)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		ended <- server.Run(serving)
		stop()
	}()
	s.greet(serving, server, begun)
	err = <-ended
	if err == nil {
		fmt.Printf("Runnel has stopped cleanly after %s.\n", time.Since(begun).Round(time.Second))
	}
	return err
}

// greet prints the banner when the server is ready. It returns early if ctx ends.
func (s *serveCommand) greet(ctx context.Context, server *standalone.Standalone, begun time.Time) {
	for pause := patience; ; pause *= 2 {
		waiting, cancel := context.WithTimeout(ctx, pause)
		err := server.WaitReady(waiting)
		cancel()
		switch {
		case err == nil:
			fmt.Print(banner{
				program: os.Args[0], version: buildinfo.Read().Version(), took: time.Since(begun), dataDir: s.DataDir,
				tls: s.Gateway.TLS.CertFile != "", mutual: !s.RPC.TLS.Empty(), adminToken: s.Admin.Token != "" || s.Admin.TokenFile != "",
				address: server.Addr().String(), admin: server.AdminAddr(), rpc: server.RPCAddr(),
				development: server.Development(), code: server.SignInCode(),
			})
			return
		case ctx.Err() != nil:
			return
		}
		fmt.Printf("Runnel is not ready yet after %s: %v\n", time.Since(begun).Round(time.Second), err)
	}
}
