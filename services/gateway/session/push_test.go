package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
)

// Each connection gets events in its encoding, live and from history, and can check them as far as that goes.
func TestEventsComeInTheEncodingOfTheConnection(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 4, "hello")
	s.store.put(log[:3])
	r := s.room()
	clients := map[string]*client{
		"ann": s.client("ann", frame.Proto), "bob": s.client("bob", frame.JSON), "cem": s.client("cem", frame.JSONWithBytes),
	}
	for _, c := range clients {
		c.resume(position(log[0]))
		c.seqs(1) // the second event
	}
	s.store.put(log)
	s.live(r, log[3])
	for name, c := range clients {
		for seq := uint64(3); seq <= 4; seq++ {
			event := c.next().GetEvent()
			require.Equal(t, seq, event.GetSeq(), name)
			require.Equal(t, "hello", event.GetBody().GetMessage().GetText(), name)
			stored := frame.FromClient(event)
			if c.events == frame.JSON {
				require.Empty(t, event.GetBodyBytes(), name)
				continue
			}
			require.Equal(t, log[seq-1].GetBody(), event.GetBodyBytes(), name)
			content, err := chain.From(seq-1, log[seq-2].GetHash()).Next(stored)
			require.NoError(t, err)
			require.Equal(t, chain.Verified, content, name)
		}
	}
}

// A page that is asked for, with what its reader may not see.
func TestPagesComeInTheEncodingOfTheConnection(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON, frame.JSONWithBytes} {
		s := newStage(t)
		log := branch(nil, 6, "hello")
		s.store.put(log)
		s.store.set(func() { s.store.joined = 3 })
		c := s.client("ann", codec)
		c.readPage(9, &clientv1.Read{ConversationId: groupID})
		f := c.next()
		require.Equal(t, uint64(9), f.GetId())
		require.Len(t, f.GetPage().GetEvents(), 4)
		require.Equal(t, uint64(2), f.GetPage().GetHidden()[0].GetLast())
		require.Equal(t, uint64(6), f.GetPage().GetHead())
		require.Equal(t, codec != frame.JSON, len(f.GetPage().GetEvents()[0].GetBodyBytes()) > 0, codec)
	}
}

func TestMessagesAreReadAsTheyAreNow(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "first")
	edit := next(log, "cem", &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 2, Text: "second"}}})
	s.store.messages = &historyv1.ReadMessagesResponse{Head: 4, More: false, Messages: []*historyv1.StoredMessage{
		{
			Event: log[1], Edit: edit, Row: &historyv1.MessageRow{Seq: 2, EditSeq: 4},
			Reactions: []*historyv1.ReactionCount{{Emoji: "+", Count: 2, Mine: true}},
		},
		{Event: log[2]},
	}}
	c := s.client("ann", frame.JSON)
	c.readMessages(5, &clientv1.ReadMessages{ConversationId: groupID, Before: 9, Limit: 7})
	f := c.next()
	require.Equal(t, uint64(5), f.GetId())
	messages := f.GetMessages()
	require.Equal(t, uint64(4), messages.GetHead())
	require.Equal(t, "second", messages.GetMessages()[0].GetMessage().GetText())
	require.True(t, messages.GetMessages()[0].GetReactions()[0].GetMine())
	require.Equal(t, "first", messages.GetMessages()[1].GetMessage().GetText())
	require.Equal(t, "ann", s.store.viewed.GetViewer())
	require.True(t, s.store.viewed.GetBackward())
	require.Equal(t, conversation.MessageKinds(), s.store.viewed.GetKinds())

	require.Len(t, messageViews(s.store.messages, 1).GetMessages(), 1, "a page fits into the send queue")
	require.True(t, messageViews(s.store.messages, 1).GetMore())
	require.False(t, messageViews(s.store.messages, 1<<20).GetMore())
	for _, bad := range []*clientv1.ReadMessages{
		{ConversationId: "x"},
		{ConversationId: groupID, Limit: maxMessages + 1},
		{ConversationId: groupID, After: 1, Before: 2},
		{ConversationId: groupID, After: 1, Backward: true},
	} {
		c.readMessages(6, bad)
		require.Equal(t, codeInvalid, c.next().GetError().GetCode(), "%v", bad)
	}
}

// A hole is never passed over: not to those who listen, not to those who come back, not to those who ask.
func TestAHoleInTheStoreIsNotPassedOver(t *testing.T) {
	log := branch(nil, 8, "x")
	for name, begin := range map[string]func(s *stage) *client{
		"in a gap": func(s *stage) *client {
			s.store.put(log[:3])
			r := s.room()
			c := s.client("ann", frame.Proto)
			c.resume()
			s.store.set(func() { s.store.log, s.store.missing = log, 5 })
			s.live(r, log[7])
			return c
		},
		"for a client that is behind": func(s *stage) *client {
			s.store.put(log)
			s.store.set(func() { s.store.missing = 5 })
			s.room()
			c := s.client("ann", frame.Proto)
			c.resume(position(log[2]))
			return c
		},
		"in an earlier membership": func(s *stage) *client {
			s.store.put(log)
			s.store.set(func() { s.store.missing, s.store.earlier, s.store.joined = 5, 6, 7 })
			s.room()
			c := s.client("ann", frame.Proto)
			c.resume(position(log[2]))
			return c
		},
		"in a former conversation": func(s *stage) *client {
			s.store.put(log)
			s.store.set(func() { s.store.missing, s.store.left = 5, 8 })
			c := s.client("ann", frame.Proto)
			c.resume(position(log[2]))
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			c := begin(s)
			require.Eventually(t, func() bool { return testutil.ToFloat64(s.g.metrics.Holes) > 1 }, patience, time.Millisecond, "it is tried again")
			require.Contains(t, s.logs.String(), groupID)
			require.Contains(t, s.logs.String(), "level=ERROR")
			c.quiet()
			s.store.set(func() { s.store.missing = 0 })
			require.Equal(t, []uint64{4, 5, 6, 7, 8}, c.seqs(5))
			require.Zero(t, testutil.ToFloat64(s.g.metrics.Reloads), "a hole is no fork")
		})
	}
	s := newStage(t)
	s.store.put(log)
	s.store.set(func() { s.store.missing = 5 })
	c := s.client("ann", frame.JSON)
	c.readPage(3, &clientv1.Read{ConversationId: groupID, After: 2})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, c.next().GetError().GetCode())
}

// One position that does not exist does not take the others with it, and is answered only if the frame has an id.
func TestABadPositionOfAnAcknowledgementIsSkipped(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.put(log)
	s.room()
	c := s.client("ann", frame.Proto)
	c.resume()
	bad := &clientv1.AckPosition{ConversationId: groupID, Delivered: 9}
	good := &clientv1.AckPosition{ConversationId: groupID, Delivered: 3, Read: 2}
	c.ack(0, &clientv1.Ack{Positions: []*clientv1.AckPosition{bad, good, bad}})
	require.Equal(t, uint64(3), s.g.acks.news[ackKey{groupID, "ann"}].GetDeliveredSeq())
	require.Equal(t, uint64(2), s.g.acks.news[ackKey{groupID, "ann"}].GetReadSeq())
	require.InDelta(t, 2, testutil.ToFloat64(s.g.metrics.EarlyAcks), 0)
	c.quiet()

	c.ack(4, &clientv1.Ack{Positions: []*clientv1.AckPosition{good, bad, bad}})
	f := c.next()
	require.Equal(t, uint64(4), f.GetId())
	require.Equal(t, "ack.positions[1]", f.GetError().GetField())
	c.quiet()

	// Now and then is honest; nothing else for long is not.
	c.ack(0, &clientv1.Ack{Positions: []*clientv1.AckPosition{good}})
	for range maxEarlyAcks - 1 {
		c.ack(0, &clientv1.Ack{Positions: []*clientv1.AckPosition{bad}})
	}
	c.ack(0, &clientv1.Ack{Positions: []*clientv1.AckPosition{good}})
	for range maxEarlyAcks - 1 {
		c.ack(0, &clientv1.Ack{Positions: []*clientv1.AckPosition{bad}})
	}
	c.quiet()
	c.ack(0, &clientv1.Ack{Positions: []*clientv1.AckPosition{bad}})
	require.Equal(t, uint16(errcode.CloseProtocol), <-c.closes)
}

// Too many positions break a rule.
func TestAnAcknowledgementOfTooManyPositions(t *testing.T) {
	s := newStage(t)
	c := s.client("ann", frame.Proto)
	long := &clientv1.Ack{Positions: make([]*clientv1.AckPosition, maxAckPositions+1)}
	for range maxBadFrames - 1 {
		c.ack(0, long)
	}
	c.quiet()
	c.ack(0, long)
	require.Equal(t, uint16(errcode.CloseProtocol), <-c.closes)
}

// What is pushed carries no error, and a request without an id gets no answer.
func TestErrorsAreAnswers(t *testing.T) {
	s := newStage(t)
	c := s.client("ann", frame.JSON)
	c.state.Store(stateOpen)
	c.refuse(0, codeInvalid, "", "x")
	c.limited(0, "x")
	c.quiet()
	c.refuse(1, codeInvalid, "", "x")
	require.Equal(t, uint64(1), c.next().GetId())
}

// The connect frame decides how events come.
func TestBodyBytesAreAskedForInConnect(t *testing.T) {
	secret := strings.Repeat("s", auth.MinSecretBytes)
	token, err := auth.Mint([]byte(secret), "ann", time.Hour, time.Now(), "", "")
	require.NoError(t, err)
	for asked, want := range map[bool]frame.Codec{false: frame.JSON, true: frame.JSONWithBytes} {
		s := newStage(t)
		s.g.verifier, err = auth.New(auth.Config{HMACSecret: secret}, auth.Options{})
		require.NoError(t, err)
		t.Cleanup(s.g.verifier.Close)
		s.g.cfg.MaxConnectionsPerUser, s.g.cfg.CommandRatePerUser = 9, 1
		c := s.client("ann", frame.JSON)
		c.connect(3, &clientv1.Connect{Token: token, DeviceId: "d", BodyBytes: asked})
		f := c.next()
		require.Equal(t, uint32(1), f.GetConnected().GetLevel(), "%v", f)
		require.Equal(t, want, c.events)
		require.Equal(t, frame.JSON, c.codec)
	}
}

// Pages in which each body comes twice are shorter.
func TestAPageFitsIntoTheSendQueue(t *testing.T) {
	s := newStage(t)
	require.Equal(t, s.g.cfg.SendQueueBytes/4, s.client("ann", frame.JSON).pageBytes())
	require.Equal(t, s.g.cfg.SendQueueBytes/8, s.client("ann", frame.JSONWithBytes).pageBytes())
}

// A client learns the level when it connects.
func TestConnectedSaysTheLevel(t *testing.T) {
	s := newStage(t)
	s.g.installationLevel.Store(7)
	require.Equal(t, uint32(7), s.client("ann", frame.JSON).connected(nil).GetLevel())
}

func TestAResumeHashIsEightBytes(t *testing.T) {
	for size, field := range map[int]string{0: "", 1: "resume[0].hash", 7: "resume[0].hash", 8: "", 32: "resume[0].hash"} {
		got, _ := checkConnect(&clientv1.Connect{DeviceId: "d", Resume: []*clientv1.Position{{ConversationId: groupID, Seq: 1, Hash: make([]byte, size)}}})
		require.Equal(t, field, got, "%d bytes", size)
	}
}
