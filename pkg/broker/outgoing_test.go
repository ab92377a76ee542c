package broker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// stalled is a NATS server that reads nothing until the test lets it read. Its connections are pipes without a buffer.
type stalled struct {
	net.Conn

	t       *testing.T
	in      *bufio.Reader
	quiet   chan struct{} // closed when the server reads nothing more by itself
	inbound string        // the id of the submitter's subscription to results
}

// Dial implements nats.CustomDialer.
func (s *stalled) Dial(string, string) (net.Conn, error) {
	client, server := net.Pipe()
	s.Conn, s.in = server, bufio.NewReader(server)
	go s.greet()
	return client, nil
}

// greet answers the client until the client has subscribed to results, and then reads nothing more.
func (s *stalled) greet() {
	defer close(s.quiet)
	_, _ = io.WriteString(s.Conn, `INFO {"server_id":"x","version":"2.12.0","headers":true,"max_payload":1048576,"proto":1}`+"\r\n")
	for {
		line, err := s.in.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "PUB ready") {
			return
		}
		if strings.HasPrefix(line, "PING") {
			_, _ = io.WriteString(s.Conn, "PONG\r\n")
		}
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "SUB" && fields[1] == ResultSubject("inbox") {
			s.inbound = fields[2]
		}
	}
}

// published reads the next message of the submitter, and returns its command.
func (s *stalled) published() *brokerv1.Command {
	s.t.Helper()
	for {
		line, err := s.in.ReadString('\n')
		require.NoError(s.t, err)
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "HPUB" {
			continue
		}
		header, err := strconv.Atoi(fields[len(fields)-2])
		require.NoError(s.t, err)
		total, err := strconv.Atoi(fields[len(fields)-1])
		require.NoError(s.t, err)
		data := make([]byte, total)
		_, err = io.ReadFull(s.in, data)
		require.NoError(s.t, err)
		var command brokerv1.Command
		require.NoError(s.t, command.UnmarshalVT(data[header:]))
		return &command
	}
}

func newStalled(t *testing.T, cfg SubmitterConfig) (*Submitter, *stalled) {
	t.Helper()
	server := &stalled{t: t, quiet: make(chan struct{})}
	// With this timeout, a write ends only when the server reads.
	nc, err := nats.Connect("nats://stalled:4222", nats.SetCustomDialer(server), nats.FlusherTimeout(time.Hour), nats.NoReconnect())
	require.NoError(t, err)
	submitter, err := NewSubmitter(nc, bus.OverNATS{Conn: nc}, 1, "inbox", cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	require.NoError(t, nc.Publish("ready", nil))
	<-server.quiet
	t.Cleanup(func() {
		_ = server.Close()
		submitter.Close()
		nc.Close()
	})
	return submitter, server
}

// isOnItsWay reports whether a command was handed to the NATS client.
func (s *Submitter) isOnItsWay(commandID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c.command.GetCommandId() == commandID {
			return !c.unsent
		}
	}
	return false
}

func toMany(n int) *brokerv1.Command {
	return &brokerv1.Command{
		ConversationId: string(conversation.DirectID("ann", ids.User(fmt.Sprint("user", n)))), Sender: "ann",
		CommandId: fmt.Sprintf("0192f3c0-0000-7000-8000-%012x", n), Body: make([]byte, 2000), Salt: []byte("sixteen bytes...."),
	}
}

// A socket that accepts no data blocks no Submit and no result. Commands submitted meanwhile are later published in
// order.
func TestASocketThatDoesNotReadStallsNothing(t *testing.T) {
	s, server := newStalled(t, SubmitterConfig{PublishTimeout: time.Hour, AcceptTimeout: time.Hour})
	const commands = 200 // 400 kB: more than the client of NATS buffers
	answered := make(chan *conversationv1.Outcome, 1)
	submitted := make(chan error, commands)
	go func() {
		for n := range commands {
			done := func(*conversationv1.Outcome) {}
			if n == 0 {
				done = func(o *conversationv1.Outcome) { answered <- o }
			}
			submitted <- s.Submit(Submission{Command: toMany(n), Done: done})
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range commands {
		select {
		case err := <-submitted:
			require.NoError(t, err)
		case <-ctx.Done():
			t.Fatal("Submit waits for the socket")
		}
	}
	require.Equal(t, commands, s.Pending())
	// A command that is answered before it was published is not published: the first one must be on its way.
	require.Eventually(t, func() bool { return s.isOnItsWay(toMany(0).GetCommandId()) }, 30*time.Second, time.Millisecond)

	// The server can write although it does not read.
	result, err := (&brokerv1.Results{Results: []*brokerv1.Result{{
		Sender: "ann", Salt: toMany(0).GetSalt(),
		Outcome: &conversationv1.Outcome{ConversationId: toMany(0).GetConversationId(), CommandId: toMany(0).GetCommandId(), Seq: 7},
	}}}).MarshalVT()
	require.NoError(t, err)
	_, err = fmt.Fprintf(server, "MSG %s %s %d\r\n%s\r\n", ResultSubject("inbox"), server.inbound, len(result), result)
	require.NoError(t, err)
	select {
	case outcome := <-answered:
		require.EqualValues(t, 7, outcome.GetSeq())
	case <-ctx.Done():
		t.Fatal("a result waits for the socket")
	}

	for n := range commands {
		require.Equal(t, toMany(n).GetCommandId(), server.published().GetCommandId())
	}
}

// While nothing can be sent, a call that is published again is not queued twice, and a call that was given up is not
// sent.
func TestWhatWaitsForTheSocketIsBounded(t *testing.T) {
	s, server := newStalled(t, SubmitterConfig{PublishTimeout: time.Hour, AcceptTimeout: time.Hour})
	const commands = 200
	for n := range commands {
		require.NoError(t, s.Submit(Submission{Command: toMany(n), Done: func(*conversationv1.Outcome) {}}))
	}
	last := toMany(commands - 1)
	var waiting *call
	s.mu.Lock()
	for _, c := range s.calls {
		s.publishLocked(c, time.Now())
		if c.command.GetCommandId() == last.GetCommandId() {
			waiting = c
		}
	}
	require.LessOrEqual(t, len(s.outgoing), commands)
	require.True(t, waiting.unsent)
	s.forgetLocked(waiting, time.Now())
	s.mu.Unlock()
	seen := map[string]int{}
	for len(seen) < commands-1 {
		seen[server.published().GetCommandId()]++
	}
	require.NotContains(t, seen, last.GetCommandId())
}
