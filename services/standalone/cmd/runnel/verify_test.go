package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
)

// log is a fake history service with one conversation.
type log struct {
	historyv1.HistoryServiceClient
	events []*conversationv1.Event
	// lost is the number of events that are missing at the end when the log is read.
	lost int
	// gap is the seq of a missing event; 0 for none.
	gap uint64
}

func (l *log) Heads(context.Context, *historyv1.HeadsRequest, ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	last := l.events[len(l.events)-1]
	return &historyv1.HeadsResponse{Heads: []*historyv1.Head{{Head: last.GetSeq(), HeadHash: last.GetHash()}}}, nil
}

func (l *log) Read(_ context.Context, in *historyv1.ReadRequest, _ ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	if l.gap > 0 && in.GetAfter() == l.gap-1 {
		st, err := status.New(codes.DataLoss, "an event is missing").WithDetails(protoadapt.MessageV1Of(&conversationv1.Range{First: l.gap, Last: l.gap}))
		return nil, errors.Join(err, st.Err())
	}
	last := len(l.events) - l.lost
	if l.gap > 0 {
		last = int(l.gap) - 1
	}
	return &historyv1.ReadResponse{Events: l.events[in.GetAfter():last]}, nil
}

// newLog makes a log of four events: one that verifies, one of an unknown kind, one erased, and one of an unknown format.
func newLog() *log {
	l := &log{}
	prev := chain.Zero
	for i, body := range []string{"one", "two", "gone", "tomorrow"} {
		event := &conversationv1.Event{
			ConversationId: "g", Seq: uint64(i + 1), Sender: "ann", Kind: conversationv1.EventKind(90 + i),
			Body: []byte(body), Salt: make([]byte, chain.SaltSize), PrevHash: prev,
		}
		chain.Seal(event)
		switch body {
		case "gone":
			chain.Erase(event)
		case "tomorrow":
			event.Format, event.Hash = chain.Format+1, []byte("in another way")
		}
		l.events, prev = append(l.events, event), event.GetHash()
	}
	return l
}

func TestVerifyCountsWhatIsKnownOfContent(t *testing.T) {
	c, err := verify(t.Context(), newLog(), "g")
	require.NoError(t, err)
	require.Equal(t, counts{verified: 2, notChecked: 1, erased: 1}, c)
	var out strings.Builder
	require.NoError(t, (&verifyCommand{}).report(&out, "g", c, nil))
	require.Equal(t, "g         4 events: 2 verified, 1 not checked, 1 erased; no hole, every hash is correct\n", out.String())
}

func TestVerifyNamesWhatWasTamperedWith(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*log)
		seq   uint64
	}{
		"changed":  {func(l *log) { l.events[1].Body = []byte("2") }, 2},
		"blanked":  {func(l *log) { l.events[1].Body = nil }, 2},
		"moved":    {func(l *log) { l.events[0].TimeMs++ }, 1},
		"replaced": {func(l *log) { l.events[3].PrevHash = chain.Zero }, 4},
		"cut off":  {func(l *log) { l.lost = 2 }, 3},
		"a gap":    {func(l *log) { l.gap = 2 }, 3}, // the event after the gap does not follow the one before it
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog()
			test.spoil(l)
			c, err := verify(t.Context(), l, "g")
			var broken *chain.Broken
			require.ErrorAs(t, err, &broken)
			require.Equal(t, ids.Seq(test.seq), broken.Seq)
			require.Equal(t, test.seq-1-min(l.gap, 1), c.verified+c.notChecked+c.erased)
			var out strings.Builder
			require.NoError(t, (&verifyCommand{JSON: true}).report(&out, "g", c, broken))
			require.Contains(t, out.String(), `"verified":false,"seq":`)
		})
	}
}
