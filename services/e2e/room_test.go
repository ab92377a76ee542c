package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
)

// large is a message of about 20 KiB.
func large(n int) *conversationv1.Body {
	metadata := map[string]string{}
	for i := range 12 {
		metadata[fmt.Sprintf("key-%02d", i)] = strings.Repeat("v", 1024)
	}
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{
		Text: fmt.Sprint(n, strings.Repeat(" x", 4000)), Metadata: metadata,
	}}}
}

// A stream of 8 MiB takes ten times that without refusing a command: what is committed makes room. No backup was ever marked, so all
// of it is younger than what is kept in that case; the stream is only as full as it is because of that.
func TestAStreamNeverRefusesForWhatIsCommitted(t *testing.T) {
	const maxBytes, senders = 8 << 20, 32
	f := newFloorOf(t, 1, maxBytes)
	stop := f.hire()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	ids := make([]string, senders)
	for i := range ids {
		outcome, err := f.send(ctx, fmt.Sprint("user-", i), "", uuid.Must(uuid.NewV7()).String(), group("bob"))
		require.NoError(t, err)
		ids[i] = outcome.GetConversationId()
	}
	each := 10 * maxBytes / senders / large(0).SizeVT()
	var sending errgroup.Group
	for i, id := range ids {
		sending.Go(func() error {
			for n := range each + 1 {
				outcome, err := f.send(ctx, fmt.Sprint("user-", i), id, uuid.Must(uuid.NewV7()).String(), large(n))
				if err != nil {
					return fmt.Errorf("message %d of %s: %w", n, id, err)
				}
				if outcome.GetSeq() != uint64(n+2) {
					return fmt.Errorf("%s: seq %d instead of %d", id, outcome.GetSeq(), n+2)
				}
			}
			return nil
		})
	}
	require.NoError(t, sending.Wait())

	js, err := jetstream.New(f.nc)
	require.NoError(t, err)
	stream, err := js.Stream(ctx, broker.StreamName(0))
	require.NoError(t, err)
	state := stream.CachedInfo().State
	require.LessOrEqual(t, state.Bytes, uint64(maxBytes))
	require.Greater(t, state.FirstSeq, uint64(1))
	mark, err := f.history.GetWatermark(ctx, &historyv1.GetWatermarkRequest{})
	require.NoError(t, err)
	require.GreaterOrEqual(t, mark.GetWatermark().GetSequence(), state.FirstSeq, "the message at the watermark stays")

	// Another worker finds its place in what is left.
	stop()
	f.hire()
	outcome, err := f.send(ctx, "user-0", ids[0], uuid.Must(uuid.NewV7()).String(), text("and on"))
	require.NoError(t, err)
	require.EqualValues(t, each+3, outcome.GetSeq())
	after, err := f.history.GetWatermark(ctx, &historyv1.GetWatermarkRequest{})
	require.NoError(t, err)
	require.Equal(t, mark.GetWatermark().GetEpoch(), after.GetWatermark().GetEpoch(), "nothing was taken for lost")
	t.Logf("%d messages of %d KiB; the stream holds %d to %d, %d KiB (%v ago the first)",
		senders*(each+1), large(0).SizeVT()>>10, state.FirstSeq, state.LastSeq, state.Bytes>>10, time.Since(state.FirstTime).Round(time.Millisecond))
}
