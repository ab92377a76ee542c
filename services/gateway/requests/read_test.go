package requests_test

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
)

// unbounded is larger than any answer of these tests.
const unbounded = 1 << 20

func seqsOf(page *clientv1.Page) (seqs []uint64) {
	for _, event := range page.GetEvents() {
		seqs = append(seqs, event.GetSeq())
	}
	return seqs
}

func falling(log []*conversationv1.Event) []*conversationv1.Event {
	log = slices.Clone(log)
	slices.Reverse(log)
	return log
}

// A read is made on behalf of the caller, in the direction that the client requests.
func TestAReadIsMadeAsTheCaller(t *testing.T) {
	log := gatewaytest.Branch(nil, 5, "x")
	for name, c := range map[string]struct {
		ask  *clientv1.Read
		want *historyv1.ReadRequest
		page []*conversationv1.Event
		seqs []uint64
	}{
		"from the beginning": {
			&clientv1.Read{}, &historyv1.ReadRequest{Limit: protocol.DefaultEventsPage}, log, []uint64{1, 2, 3, 4, 5},
		},
		"after": {
			&clientv1.Read{After: 3, Limit: 2}, &historyv1.ReadRequest{After: 3, Limit: 2}, log[3:], []uint64{4, 5},
		},
		"backward from the head": {
			&clientv1.Read{Backward: true, Limit: 5}, &historyv1.ReadRequest{Backward: true, Limit: 5}, falling(log), []uint64{5, 4, 3, 2, 1},
		},
		"before implies backward": {
			&clientv1.Read{Before: 4, Limit: 3}, &historyv1.ReadRequest{Before: 4, Backward: true, Limit: 3}, falling(log[:3]), []uint64{3, 2, 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, nil)
			s.history.page = &historyv1.ReadResponse{Events: c.page, Head: 5}
			c.ask.ConversationId, c.want.ConversationId, c.want.Viewer = groupID, groupID, "ann"
			answered := s.answered(read(c.ask), unbounded).GetPage()
			protoEqual(t, c.want, s.history.read)
			require.Equal(t, c.seqs, seqsOf(answered))
			require.Equal(t, uint64(5), answered.GetHead())
			require.False(t, answered.GetMore())
			require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Reads[metrics.ReadClient]), 0)
		})
	}
}

// A page with a hole is not passed on, in either direction.
func TestAReadWithAHoleIsNoAnswer(t *testing.T) {
	log := gatewaytest.Branch(nil, 5, "x")
	for name, c := range map[string]struct {
		ask  *clientv1.Read
		page []*conversationv1.Event
		seq  uint64
	}{
		"rising":  {&clientv1.Read{After: 1}, []*conversationv1.Event{log[1], log[3], log[4]}, 3},
		"falling": {&clientv1.Read{Backward: true}, []*conversationv1.Event{log[4], log[2]}, 4},
		"before":  {&clientv1.Read{Before: 4}, []*conversationv1.Event{log[1]}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, nil)
			s.history.page = &historyv1.ReadResponse{Events: c.page, Head: 5}
			c.ask.ConversationId = groupID
			_, err := s.do(read(c.ask), unbounded)
			var hole *page.HoleError
			require.ErrorAs(t, err, &hole)
			require.Equal(t, ids.Seq(c.seq), hole.Seq)
		})
	}
}

// A page is cut if it would be larger than the answer may be, and reports that there is more.
func TestAPageIsCutToItsSize(t *testing.T) {
	log := gatewaytest.Branch(nil, 6, "a text of some length")
	size := 0
	for _, event := range log[1:4] {
		size += event.SizeVT()
	}
	for name, c := range map[string]struct {
		maxBytes int
		seqs     []uint64
		more     bool
		hidden   int
	}{
		"all":                      {unbounded, []uint64{2, 3, 4, 5, 6}, false, 1},
		"as many as fit":           {size, []uint64{2, 3, 4}, true, 0},
		"one byte too little room": {size - 1, []uint64{2, 3}, true, 0},
		"one event always fits":    {1, []uint64{2}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, nil)
			s.history.page = &historyv1.ReadResponse{Events: log[1:], Head: 8, Hidden: []*conversationv1.Range{{First: 7, Last: 8}}}
			answered := s.answered(read(&clientv1.Read{ConversationId: groupID, After: 1}), c.maxBytes).GetPage()
			require.Equal(t, c.seqs, seqsOf(answered))
			require.Equal(t, c.more, answered.GetMore())
			require.Len(t, answered.GetHidden(), c.hidden, "a hidden stretch after the cut comes with the next page")
		})
	}
}

// Every encoding contains the same events; only two of them contain the bytes of the bodies.
func TestAnswersComeInEveryEncoding(t *testing.T) {
	log := gatewaytest.Branch(nil, 3, "x")
	for codec := range frame.Codec(frame.NumCodecs) {
		t.Run(codec.String(), func(t *testing.T) {
			s := newStage(t, nil)
			s.history.page = &historyv1.ReadResponse{Events: log, Head: 3, Hidden: nil, More: true}
			answer, err := s.do(read(&clientv1.Read{ConversationId: groupID}), unbounded)
			require.NoError(t, err)
			answered := decode(t, answer, codec).GetPage()
			require.Equal(t, []uint64{1, 2, 3}, seqsOf(answered))
			require.True(t, answered.GetMore())
			require.Equal(t, "x", answered.GetEvents()[2].GetBody().GetMessage().GetText())
			if codec != frame.JSON {
				require.Equal(t, log[2].GetBody(), answered.GetEvents()[2].GetBodyBytes())
			}

			s.history.listed = &historyv1.ListMembersResponse{Members: []*historyv1.Member{{Cursor: &conversationv1.Cursor{UserId: "bob", ReadSeq: 2}}}}
			answer, err = s.do(listMembers(&clientv1.ListMembers{ConversationId: groupID}), unbounded)
			require.NoError(t, err)
			require.Equal(t, uint64(2), decode(t, answer, codec).GetMembers().GetMembers()[0].GetReadSeq())
		})
	}
}

// Messages are read on behalf of the caller, and only kinds that are messages are returned.
func TestMessagesAreReadAsTheCaller(t *testing.T) {
	for name, c := range map[string]struct {
		ask  *clientv1.ReadMessages
		want *historyv1.ReadMessagesRequest
	}{
		"the first":               {&clientv1.ReadMessages{}, &historyv1.ReadMessagesRequest{Limit: protocol.DefaultMessagesPage}},
		"after":                   {&clientv1.ReadMessages{After: 7, Limit: 9}, &historyv1.ReadMessagesRequest{After: 7, Limit: 9}},
		"backward":                {&clientv1.ReadMessages{Backward: true, Limit: 9}, &historyv1.ReadMessagesRequest{Backward: true, Limit: 9}},
		"before implies backward": {&clientv1.ReadMessages{Before: 7, Limit: 9}, &historyv1.ReadMessagesRequest{Before: 7, Backward: true, Limit: 9}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, nil)
			log := gatewaytest.Branch(nil, 3, "hello")
			s.history.messages = &historyv1.ReadMessagesResponse{Head: 3, Messages: []*historyv1.StoredMessage{{Event: log[1]}, {Event: log[2]}}}
			c.ask.ConversationId, c.want.ConversationId, c.want.Viewer = groupID, groupID, "ann"
			c.want.Kinds = conversation.MessageKinds()
			answered := s.answered(readMessages(c.ask), unbounded).GetMessages()
			protoEqual(t, c.want, s.history.readMessages)
			require.Len(t, answered.GetMessages(), 2)
			require.Equal(t, uint64(2), answered.GetMessages()[0].GetSeq())
			require.Equal(t, "hello", answered.GetMessages()[1].GetMessage().GetText())
			require.Equal(t, uint64(3), answered.GetHead())
			require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Reads[metrics.ReadViews]), 0)
		})
	}
}

// Messages are cut as events are.
func TestMessagesAreCutToTheirSize(t *testing.T) {
	log := gatewaytest.Branch(nil, 4, "a text of some length")
	stored := []*historyv1.StoredMessage{{Event: log[1]}, {Event: log[2]}, {Event: log[3]}}
	two := conversation.View(stored[0]).SizeVT() + conversation.View(stored[1]).SizeVT()
	for name, c := range map[string]struct {
		maxBytes, n int
		more        bool
	}{
		"all": {unbounded, 3, false}, "two": {two, 2, true}, "one byte too little room": {two - 1, 1, true}, "always one": {1, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, nil)
			s.history.messages = &historyv1.ReadMessagesResponse{Head: 4, Messages: stored}
			answered := s.answered(readMessages(&clientv1.ReadMessages{ConversationId: groupID}), c.maxBytes).GetMessages()
			require.Len(t, answered.GetMessages(), c.n)
			require.Equal(t, c.more, answered.GetMore())
		})
	}
	s := newStage(t, nil)
	s.history.messages = &historyv1.ReadMessagesResponse{Head: 4, Messages: stored[:1], More: true}
	require.True(t, s.answered(readMessages(&clientv1.ReadMessages{ConversationId: groupID}), unbounded).GetMessages().GetMore())
}
