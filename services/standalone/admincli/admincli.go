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
	// ExitFailed says that the question was not answered, the order not carried out, or that what was checked is not right.
	ExitFailed = 1
	// ExitUsage says that the command line makes no sense.
	ExitUsage = 2
	// ExitIncomplete says that the answer was printed but is not whole: an instance did not answer, or a partition is still on
	// its way. What is missing is told on standard error.
	ExitIncomplete = 3
)

// DefaultStandalone is where the one process that is everything is asked when nothing else is said.
const DefaultStandalone = "127.0.0.1:9000"

// Command is `runnel admin` with everything below it.
type Command struct {
	// Address defaults to a worker of its own on this machine, or else to the one process that is everything.
	Address []string `help:"gRPC address of a delivery worker, or several: the first that can be reached is asked." default:"127.0.0.1:9001,127.0.0.1:9000"`
	TLS     TLS      `embed:"" prefix:"tls."`
	// Timeout is for each question, not for the command.
	Timeout time.Duration `help:"How long to wait for each answer." default:"5s"`
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
	return `Ask and steer a running installation. Any delivery worker answers, for all of it.

Without TLS between the services, workers answer only operators on their own machine. With it, show a certificate with the DNS
name runnel-admin:

  runnel admin --address worker.example:9001 --tls.cert-file admin.pem --tls.key-file admin-key.pem --tls.ca-file ca.pem status

Exit codes: 0 done; 1 failed, or what was checked is not right; 2 the command line makes no sense; 3 the answer is not whole,
because somebody did not answer (who is told on standard error).`
}

// TLS is how the command and the worker prove who they are.
type TLS struct {
	certs.Config `embed:""`

	ServerName string `help:"DNS name that the worker's certificate must have." default:"runnel-delivery"`
}

// Console is what a command prints to, and the clock that ages are told by; times are told in its zone.
type Console struct {
	Out, Err io.Writer
	Now      func() time.Time
}

// session is one run of a command.
type session struct {
	Console

	admin adminv1.AdminServiceClient
	json  bool
}

// run connects, does what the command does, and makes of its error one that helps.
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
	// The first address that can be reached, not each in turn: they may be of different programs.
	list := manual.NewBuilderWithScheme("runnel")
	var addresses []resolver.Address
	for _, address := range c.Address {
		addresses = append(addresses, resolver.Address{Addr: address})
	}
	list.InitialState(resolver.State{Addresses: addresses})
	return rpc.Dial("runnel:///"+strings.Join(c.Address, ","), config, telemetry.Discard(),
		grpc.WithResolvers(list), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"pick_first":{}}]}`))
}

// outcome is an error that ends the program with a code of its own.
type outcome struct {
	code int
	err  error
}

func (o *outcome) Error() string { return o.err.Error() }
func (o *outcome) Unwrap() error { return o.err }

// ExitCode is one of those above.
func (o *outcome) ExitCode() int { return o.code }

func usage(format string, args ...any) error {
	return &outcome{ExitUsage, fmt.Errorf(format, args...)}
}

func failed(format string, args ...any) error {
	return &outcome{ExitFailed, fmt.Errorf(format, args...)}
}

// complete is the error of an answer that lacks somebody's part.
func complete(missing []*adminv1.Missing) error {
	if len(missing) == 0 {
		return nil
	}
	var text []string
	for _, m := range missing {
		text = append(text, fmt.Sprintf("%s %s (%s)", m.GetService(), clean(m.GetInstance()), clean(m.GetReason())))
	}
	return &outcome{ExitIncomplete, fmt.Errorf("the answer is not whole: no answer from %s", strings.Join(text, ", "))}
}

// turn asks for page after page until there is no more or limit is reached, at most maxPage at once. ask gives the number of
// entries that came, and whether there are more.
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

// maxPage is the service's limit of entries in one answer.
const maxPage = rpc.MaxItems
