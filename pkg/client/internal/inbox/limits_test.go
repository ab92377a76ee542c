package inbox_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// The inbox keeps the limits of the latest gateway. In connect it never uses more than the protocol allows: the next gateway may
// be another.
func TestLimitsOfTheGatewayAreKept(t *testing.T) {
	f := newFixture(clientv1.Start_START_FIRST)
	for i := range protocol.MaxResumePositions + 2 {
		log := logtest.New(strconv.Itoa(i), 1)
		f.Restore(log.ID, 1, log.Hash(1))
	}
	_, positions := f.Connecting()
	require.Len(t, positions, protocol.MaxResumePositions, "before the first connection")

	long := logtest.New("long", 3*protocol.MaxPage)
	connected := &clientv1.Connected{Conversations: []*clientv1.Conversation{info(long)}, More: true}
	f.Inbox.Connected(connected, inbox.Limits{ResumePositions: 3, AckPositions: 2, Page: 5})
	require.Equal(t, uint32(5), f.reads[0].Limit)
	_, positions = f.Connecting()
	require.Len(t, positions, 3)

	f.Inbox.Connected(connected, inbox.Limits{ResumePositions: 10_000, AckPositions: 10_000, Page: 10_000})
	_, positions = f.Connecting()
	require.Len(t, positions, protocol.MaxResumePositions)
}

func TestAnAcknowledgementHasNoMorePositionsThanTheGatewayAllows(t *testing.T) {
	f := newFixture(clientv1.Start_START_FIRST)
	var infos []*clientv1.Conversation
	for i := range 5 {
		infos = append(infos, info(logtest.New(strconv.Itoa(i), 1)))
	}
	f.Connecting()
	f.Inbox.Connected(&clientv1.Connected{Conversations: infos}, inbox.Limits{ResumePositions: 10, AckPositions: 2, Page: 10})
	for i := range 5 {
		f.push(logtest.New(strconv.Itoa(i), 1), 1)
	}
	var sizes []int
	for !f.AckDue().IsZero() {
		sizes = append(sizes, len(f.TakeAck().GetPositions()))
	}
	require.Equal(t, []int{2, 2, 1}, sizes)
}
