package broker

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/conversation"
)

// withoutStream makes a Submitter whose publishes are received only by the test.
func withoutStream(t *testing.T, cfg SubmitterConfig) (*Submitter, *nats.Subscription) {
	t.Helper()
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(30*time.Second))
	nc, err := Connect(Config{}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nats.InProcessServer(ns))
	require.NoError(t, err)
	s, err := NewSubmitter(nc, bus.OverNATS{Conn: nc}, 1, "inbox", cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	sub, err := nc.SubscribeSync("in.*")
	require.NoError(t, err)
	t.Cleanup(func() {
		s.Close()
		nc.Close()
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return s, sub
}

func submitOne(t *testing.T, s *Submitter) *call {
	t.Helper()
	command := &brokerv1.Command{
		ConversationId: string(conversation.DirectID("ann", "bob")), Sender: "ann", CommandId: "0192f3c0-0000-7000-8000-000000000001",
		Attempt: 3, Body: []byte{0x12, 0x03, 0x0a, 0x01, 'x'}, Salt: []byte("sixteen bytes...."),
	}
	require.NoError(t, s.Submit(Submission{Command: command, Done: func(*conversationv1.Outcome) {}}))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		return c
	}
	return nil
}

// Every copy of a call has the same bytes, whatever the reason for publishing it again. No copy is published after
// not_after.
func TestCopiesOfACallAreTheSameAndEndInTime(t *testing.T) {
	s, published := withoutStream(t, SubmitterConfig{PublishTimeout: time.Hour, AcceptTimeout: 10 * time.Hour, OutcomeTimeout: 10 * time.Hour})
	c := submitOne(t, s)
	first, err := published.NextMsg(30 * time.Second)
	require.NoError(t, err)
	var command brokerv1.Command
	require.NoError(t, command.UnmarshalVT(first.Data))
	require.Equal(t, uint32(3), command.GetAttempt())
	require.Equal(t, CopyLifetime.Milliseconds(), command.GetNotAfterMs()-command.GetAdmittedMs())
	require.InDelta(t, time.Now().UnixMilli(), command.GetAdmittedMs(), 60_000)
	require.False(t, c.deadline.After(c.notAfter), "an unanswered publish ends in time")

	for range 2 {
		s.mu.Lock()
		s.renewIDLocked(c)
		s.publishLocked(c, c.notAfter)
		s.mu.Unlock()
		msg, err := published.NextMsg(30 * time.Second)
		require.NoError(t, err)
		require.Equal(t, first.Data, msg.Data)
	}

	late := c.notAfter.Add(time.Nanosecond)
	s.mu.Lock()
	s.publishLocked(c, late)
	require.Empty(t, s.outgoing)
	s.mu.Unlock()
	require.NoError(t, s.nc.Flush())
	count, _, err := published.Pending()
	require.NoError(t, err)
	require.Zero(t, count)

	// The same holds when a client repeats an accepted command.
	s.mu.Lock()
	delete(s.acks, c.token)
	c.token, c.accepted, c.deadline = 0, true, late.Add(time.Hour)
	require.NoError(t, s.joinAndUnlock(c, Submission{Command: c.command}, late))
	s.mu.Lock()
	require.Empty(t, s.outgoing)
	s.mu.Unlock()
	require.NoError(t, s.nc.Flush())
	count, _, err = published.Pending()
	require.NoError(t, err)
	require.Zero(t, count)
}

// A duplicate is published again so that the owner answers it, but never after the copies' deadline.
func TestADuplicateIsNotPublishedAgainTooLate(t *testing.T) {
	s, published := withoutStream(t, SubmitterConfig{PublishTimeout: time.Hour, AcceptTimeout: time.Hour})
	c := submitOne(t, s)
	first, err := published.NextMsg(30 * time.Second)
	require.NoError(t, err)
	s.mu.Lock()
	c.notAfter = time.Now().Add(-time.Second)
	s.mu.Unlock()
	s.onPubAck(&nats.Msg{Subject: first.Reply, Data: []byte(`{"stream":"IN_0","seq":1,"duplicate":true}`)})
	require.NoError(t, s.nc.Flush())
	count, _, err := published.Pending()
	require.NoError(t, err)
	require.Zero(t, count)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.True(t, c.accepted, "it is in the stream, and its outcome may still come")
}
