// Command runnel runs Runnel in one process, and contains the tools for using it at a terminal.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/pkg/terminal"
	"github.com/runnelhq/runnel/services/standalone"
	"github.com/runnelhq/runnel/services/standalone/admincli"
)

// cli lists the commands. Without a command, runnel serves.
type cli struct {
	Serve  serveCommand  `cmd:"" default:"withargs" help:"Run gateway, delivery and history in this process (the default)."`
	Token  tokenCommand  `cmd:"" help:"Print a development token for a user."`
	Chat   chatCommand   `cmd:"" help:"Chat in the terminal."`
	Verify verifyCommand `cmd:"" help:"Check the hash chain of a conversation, or of all conversations of a user."`

	Admin admincli.Command `cmd:"" help:"Inspect and control a running installation, of one process or many."`
}

func main() {
	var c cli
	command := settings.Parse("runnel", "A self-hosted messaging backend: no committed message is lost, every hop is visible, and one command starts it.", &c)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	command.BindTo(ctx, (*context.Context)(nil))
	command.Bind(&admincli.Console{Out: os.Stdout, Err: os.Stderr, Now: time.Now})
	err := command.Run()
	stop()
	if err != nil {
		_ = terminal.Fprintf(os.Stderr, "runnel: %v\n", err) // servers' words may be in it
		os.Exit(exitCode(err))
	}
}

// exitCode is 1, unless the error has a code of its own.
func exitCode(err error) int {
	var coder kong.ExitCoder
	if errors.As(err, &coder) {
		return coder.ExitCode()
	}
	return 1
}

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
	server, err := standalone.New(ctx, s.Config, tel)
	if err != nil {
		return err
	}
	s.greet(server, time.Since(begun))
	return server.Run(ctx)
}

func (s *serveCommand) greet(server *standalone.Standalone, took time.Duration) {
	fmt.Printf("Runnel is ready after %s. All data is in %s\n\n", took.Round(time.Millisecond), s.DataDir)
	fmt.Printf("  Open in a browser   %s\n", pageLink(server.Addr().String(), server.SignInCode()))
	if server.Development() {
		fmt.Printf("  Chat in terminals   bin/runnel chat alice --with bob    and    bin/runnel chat bob --with alice\n")
		fmt.Printf("  A token             bin/runnel token alice\n")
	}
	if admin := server.AdminAddr(); admin != "" {
		fmt.Printf("  Status page         http://%s/ (also /metrics and /readyz)\n", admin)
	}
	address := ""
	if server.RPCAddr() != admincli.DefaultStandalone {
		address = "--address " + server.RPCAddr() + " "
	}
	fmt.Printf("  Administration      bin/runnel admin %sstatus    (runnel admin --help lists all commands)\n", address)
	fmt.Println("\nCtrl-C stops it.")
	if server.Development() {
		fmt.Println("No authentication is configured: whoever has the code in the link, or can read the data directory, may sign in as any user.")
		fmt.Println("The code is new with each start. See the auth settings in --help.")
	}
}

// pageLink is the address of the chat page. The code is in the fragment, which browsers send to nobody.
func pageLink(address, code string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && net.ParseIP(host).IsUnspecified() {
		address = net.JoinHostPort("127.0.0.1", port) // sign-in is for this machine
	}
	link := url.URL{Scheme: "http", Host: address, Path: "/"}
	if code != "" {
		link.Fragment = "code=" + code
	}
	return link.String()
}

type tokenCommand struct {
	User    string        `arg:"" help:"User id, or the name that the issuer gives the user, such as auth0|x or an e-mail address."`
	TTL     time.Duration `name:"ttl" help:"Lifetime of the token." default:"24h" range:"1s.."`
	DataDir string        `help:"The server's data directory, for its development secret." default:"./runnel-data" type:"path"`
	Auth    auth.Config   `embed:"" prefix:"auth."`
}

// Run prints a token.
func (t *tokenCommand) Run() error {
	token, err := mint(t.Auth, t.DataDir, t.User, t.TTL)
	if err != nil {
		return err
	}
	if _, err := fmt.Println(token); err != nil {
		return fmt.Errorf("print the token: %w", err)
	}
	return nil
}

// mint signs a token with the secret of the settings, or with the development secret.
func mint(cfg auth.Config, dataDir, user string, ttl time.Duration) (string, error) {
	current, err := cfg.Secret()
	if err != nil {
		return "", fmt.Errorf("read the secret that signs tokens: %w", err)
	}
	secret := []byte(current)
	if len(secret) == 0 {
		if secret, err = standalone.DevSecret(dataDir); err != nil {
			return "", err
		}
	}
	token, err := cfg.Mint(secret, ids.User(user), ttl, time.Now())
	if err != nil {
		return "", fmt.Errorf("make a token for %q: %w", user, err)
	}
	return token, nil
}
