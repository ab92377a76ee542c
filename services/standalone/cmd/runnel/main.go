// Command runnel runs Runnel in one process, and contains the tools for using it at a terminal.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/settings"
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
	Size   sizeCommand   `cmd:"" help:"Compute what an installation of a given size needs, and which limit it meets first."`

	Backup  backupCommand  `cmd:"" help:"Copy the database of a server in one process into a file, also while it runs."`
	Restore restoreCommand `cmd:"" help:"Put a backup in place before the server starts."`

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
		_ = terminal.Fprintf(os.Stderr, "runnel: %v\n", err) // the error may contain text from a server
		os.Exit(exitCode(err))
	}
}

// exitCode returns 1, unless the error has an exit code of its own.
func exitCode(err error) int {
	var coder kong.ExitCoder
	if errors.As(err, &coder) {
		return coder.ExitCode()
	}
	return 1
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

// mint signs a token with the configured secret, or with the development secret.
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
