package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/standalone"
)

// server is a standalone server for one test.
type server struct {
	url, dataDir string
	stop         func()
}

func serve(t *testing.T) *server {
	t.Helper()
	var cfg standalone.Config
	parser, err := settings.New("test", "", &cfg)
	require.NoError(t, err)
	_, err = parser.Parse(nil)
	require.NoError(t, err)
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	cfg.Gateway.Listen, cfg.RPC.Listen, cfg.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0", ""
	cfg.NATS.Partitions, cfg.Gateway.CommandRatePerUser, cfg.Gateway.FrameRate = 2, 1000, 1000
	s, err := standalone.New(t.Context(), cfg, telemetry.Discard())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx) }()
	ended := false
	stop := func() {
		if !ended {
			ended = true
			cancel()
			require.NoError(t, <-served)
		}
	}
	t.Cleanup(stop)
	return &server{"ws://" + s.Addr().String() + "/v1/ws", cfg.DataDir, stop}
}

// pipe runs `runnel chat ann --with bob` with an input, as a script does.
func (s *server) pipe(t *testing.T, in io.Reader) (printed string, err error) {
	t.Helper()
	out := &screen{changed: make(chan struct{}, 1)}
	command := chatCommand{User: "ann", With: "bob", URL: s.url, DataDir: s.dataDir}
	err = command.chat(t.Context(), in, out)
	return out.text.String(), err
}

func TestAnEndedInputIsCommitted(t *testing.T) {
	s := serve(t)
	printed, err := s.pipe(t, strings.NewReader("hi\r\n  two\nthree without an end"))
	require.NoError(t, err)
	require.Contains(t, printed, "✓ committed as 2: hi\n")
	require.Contains(t, printed, "✓ committed as 3:   two\n")
	require.Contains(t, printed, "✓ committed as 4: three without an end\n")

	// More lines than wait in the outbox at a time.
	n := maxUnsent + 20
	printed, err = s.pipe(t, strings.NewReader(strings.Repeat("x\n", n)))
	require.NoError(t, err)
	require.Equal(t, n, strings.Count(printed, "✓ committed as "))
}

func TestWhatIsNotCarriedOutIsAnError(t *testing.T) {
	s := serve(t)
	long := strings.Repeat("x", maxLine+1)
	for name, c := range map[string]struct{ in, shown, err string }{
		"a refused message":    {strings.Repeat("x", protocol.MaxTextBytes+1) + "\nafter it", "must be at most 8192 bytes", ": 1"},
		"a refused command":    {"/delete 99\nafter it", "refused", ": 1"},
		"an unknown command":   {"/nothing\nafter it", "unknown command", ": 1"},
		"a long line":          {long + "\nafter it", "a line is longer than 65536 bytes", ": 1"},
		"a long line at last":  {"after it\n" + long, "a line is longer than 65536 bytes", ": 1"},
		"a very long line":     {strings.Repeat(long, 5) + "\nafter it\n", "a line is longer than 65536 bytes", ": 1"},
		"a line in Latin-1":    {"caf\xe9\nafter it", "a line is not UTF-8", ": 1"},
		"an escape in a line":  {"a\x1b[2Jb\nafter it", `"a\x1b[2Jb" was not sent`, ": 1"},
		"all of it twice":      {"/nothing\n/nothing\nafter it", "", ": 2"},
		"a read of a terminal": {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			printed, err := s.pipe(t, strings.NewReader(c.in))
			if c.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "lines that were not carried out"+c.err)
			require.Equal(t, 1, exitCode(err))
			require.Contains(t, printed, c.shown)
			require.Regexp(t, `✓ committed as \d+: after it\n`, printed, "the rest is carried out")
		})
	}
	_, err := s.pipe(t, io.MultiReader(strings.NewReader("sent\n"), failingReader{}))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func TestAConversationThatCannotBeOpenedEndsTheProgram(t *testing.T) {
	s := serve(t)
	out := &screen{changed: make(chan struct{}, 1)}
	command := chatCommand{User: "ann", With: "not\ta user", URL: s.url, DataDir: s.dataDir}
	err := command.chat(t.Context(), strings.NewReader("hi\n"), out)
	require.ErrorContains(t, err, "user id 1 of 1 has characters that cannot be printed")
	require.NotContains(t, out.text.String(), "○ hi")
}

func TestAGatewayThatIsAwayIsAnError(t *testing.T) {
	s := serve(t)
	s.stop()
	out := &screen{changed: make(chan struct{}, 1)}
	command := chatCommand{User: "ann", With: "bob", URL: s.url, DataDir: s.dataDir, Wait: 50 * time.Millisecond}
	err := command.chat(t.Context(), strings.NewReader("hi\n"), out)
	require.ErrorContains(t, err, "connect: client: wait for a connection")
}

// TestWhatIsNotSentIsListed: the gateway goes away, and then the input ends, the user types /quit, or a signal comes.
func TestWhatIsNotSentIsListed(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(p *person, signal func()){
		"end of input": func(p *person, _ func()) { _ = p.keys.Close() },
		"/quit":        func(p *person, _ func()) { _, _ = io.WriteString(p.keys, "/quit\n") },
		"signal":       func(_ *person, signal func()) { signal() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			ctx, signal := context.WithCancel(t.Context())
			defer signal()
			in, keys := io.Pipe()
			p := &person{keys: keys, screen: &screen{changed: make(chan struct{}, 1)}, done: make(chan error, 1)}
			command := chatCommand{User: "ann", With: "bob", URL: s.url, DataDir: s.dataDir, Wait: 10 * time.Second}
			go func() { p.done <- command.chat(ctx, in, p.screen) }()
			p.screen.waitFor(t, "you are talking with bob")
			s.stop()
			p.write(t, "lost one")
			p.write(t, "lost two")
			p.screen.waitFor(t, "○ lost two")
			end(p, signal)
			err := <-p.done
			require.ErrorContains(t, err, "gave up after 10s without progress; commands that were not sent: 2, that were sent with an unknown outcome: 0")
			require.Equal(t, 1, exitCode(err))
			printed := p.screen.text.String()
			require.Contains(t, printed, "· messages to be sent: 2; gives up after 10s without progress")
			require.Contains(t, printed, "! not sent: lost one\n! not sent: lost two\n")
		})
	}
}

// TestASignalWaitsForWhatIsInTheOutbox: Ctrl-C right after a line.
func TestASignalWaitsForWhatIsInTheOutbox(t *testing.T) {
	s := serve(t)
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	in, keys := io.Pipe()
	p := &person{keys: keys, screen: &screen{changed: make(chan struct{}, 1)}, done: make(chan error, 1)}
	command := chatCommand{User: "ann", With: "bob", URL: s.url, DataDir: s.dataDir}
	go func() { p.done <- command.chat(ctx, in, p.screen) }()
	p.screen.waitFor(t, "you are talking with bob")
	p.write(t, "hi")
	p.screen.waitFor(t, "○ hi")
	signal()
	require.NoError(t, <-p.done)
	require.Contains(t, p.screen.text.String(), "✓ committed as 2: hi\n")
}
