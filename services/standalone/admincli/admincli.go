package admincli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Exit codes of every command.
const (
	// ExitFailed means that the query or the command failed, or that a check found a fault.
	ExitFailed = 1
	// ExitUsage means that the command line is invalid.
	ExitUsage = 2
	// ExitIncomplete means that the printed answer is incomplete: an instance did not answer, or a partition is still
	// being handed over. The missing parts are printed on standard error.
	ExitIncomplete = 3
)

// DefaultStandalone is the default gRPC address of a standalone server.
const DefaultStandalone = "127.0.0.1:9000"

// Command is `runnel admin` with all its subcommands.
type Command struct {
	// Address defaults to a delivery worker on this machine, and if there is none, to a standalone server on this
	// machine.
	Address []string `help:"gRPC address of a delivery worker, or several: the first reachable one is used." default:"127.0.0.1:9001,127.0.0.1:9000"`
	TLS     TLS      `embed:"" prefix:"tls."`
	// Timeout limits each call, not the whole command.
	Timeout time.Duration `help:"How long to wait for each answer." default:"5s" range:"1ms..1h"`
	JSON    bool          `name:"json" help:"Print one JSON object instead of tables."`

	Status        status        `cmd:"" help:"Show the installation: gateways, workers, partitions, dead letters."`
	Connections   connections   `cmd:"" help:"Connections of clients: list, inspect, disconnect."`
	Users         users         `cmd:"" help:"Users: sessions, revoke."`
	Conversations conversations `cmd:"" help:"Conversations: list, show, members, verify."`
	Partitions    partitions    `cmd:"" help:"Partitions: list, move."`
	DeadLetters   deadLetters   `cmd:"" help:"Dead letters: list, show, retry, drop."`
	Explain       explain       `cmd:"" help:"Why a user did or did not get an event."`
	Level         level         `cmd:"" help:"Protocol level: show, raise."`
	Erase         erase         `cmd:"" help:"Erase content of a conversation permanently."`
	Backup        backup        `cmd:"" help:"Backups: mark."`
}

// Help is the long text of --help.
func (*Command) Help() string {
	return `Inspect and control a running installation. Any delivery worker answers for the whole installation.

Without TLS between the services, workers answer only operators on their own machine. With it, show a certificate with the DNS
name runnel-admin:

  runnel admin --address worker.example:9001 --tls.cert-file admin.pem --tls.key-file admin-key.pem --tls.ca-file ca.pem status

Exit codes: 0 done; 1 failed, or a check found a fault; 2 invalid command line; 3 the answer is incomplete,
because an instance did not answer (standard error names it).`
}

// TLS configures how the command and the worker authenticate each other.
type TLS struct {
	certs.Config `embed:""`

	ServerName string `help:"DNS name that the worker's certificate must have." default:"runnel-delivery"`
}

// Console is the output of a command, and the clock for computing ages. Times are printed in the clock's zone.
type Console struct {
	Out, Err io.Writer
	Now      func() time.Time
}

// session is one run of a subcommand.
type session struct {
	Console

	admin adminv1.AdminServiceClient
	json  bool
}

// run connects and runs the command. If the command fails, the returned error tells the operator what to do.
func (c *Command) run(console *Console, do func(s *session) error) (err error) {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return c.explainError(do(&session{Console: *console, admin: adminv1.NewAdminServiceClient(conn), json: c.JSON}))
}

func (c *Command) dial() (*grpc.ClientConn, error) {
	config := rpc.ClientConfig{Service: rpc.Role(c.TLS.ServerName), TLS: c.TLS.Config, Timeout: c.Timeout}
	if len(c.Address) == 1 {
		return rpc.Dial(c.Address[0], config, telemetry.Discard())
	}
	// Use the first reachable address. Calls are not distributed over the addresses, because these may be different
	// programs.
	list := manual.NewBuilderWithScheme("runnel")
	var addresses []resolver.Address
	for _, address := range c.Address {
		addresses = append(addresses, resolver.Address{Addr: address})
	}
	list.InitialState(resolver.State{Addresses: addresses})
	return rpc.Dial("runnel:///"+strings.Join(c.Address, ","), config, telemetry.Discard(),
		grpc.WithResolvers(list), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"pick_first":{}}]}`))
}

// outcome is an error that ends the program with its own exit code.
type outcome struct {
	code int
	err  error
}

func (o *outcome) Error() string { return o.err.Error() }
func (o *outcome) Unwrap() error { return o.err }

// ExitCode returns the exit code of the program.
func (o *outcome) ExitCode() int { return o.code }

func usage(format string, args ...any) error {
	return &outcome{ExitUsage, fmt.Errorf(format, args...)}
}

func failed(format string, args ...any) error {
	return &outcome{ExitFailed, fmt.Errorf(format, args...)}
}

// complete returns the error for an answer in which instances are missing; nil if none is missing.
func complete(missing []*adminv1.Missing) error {
	if len(missing) == 0 {
		return nil
	}
	var text []string
	for _, m := range missing {
		text = append(text, fmt.Sprintf("%s %s (%s)", m.GetService(), clean(m.GetInstance()), clean(m.GetReason())))
	}
	return &outcome{ExitIncomplete, fmt.Errorf("the answer is incomplete: no answer from %s", strings.Join(text, ", "))}
}

// turn reads page after page until the last page or until limit entries, at most maxPage entries per call. ask returns
// the number of entries on the page, and whether there are more.
func turn(ctx context.Context, limit uint32, ask func(ctx context.Context, limit uint32) (n int, more bool, err error)) (more bool, err error) {
	more = true
	for got := uint32(0); more && got < limit; {
		n, again, err := ask(ctx, min(limit-got, maxPage))
		if err != nil {
			return false, err
		}
		got += uint32(n)
		more = again && n > 0
	}
	return more, nil
}

// maxPage is the maximum number of entries in one answer of the service.
const maxPage = rpc.MaxItems
