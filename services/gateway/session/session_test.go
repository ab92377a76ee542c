package session

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// A client that cannot connect gets the reason and a close code that tells it what to do, and is counted.
func TestConnectsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(s *stage)
		spoil   func(connect *clientv1.Connect)
		code    conversationv1.ErrorCode
		field   string
		close   errcode.CloseCode
		reject  metrics.Reject
	}{
		"an invalid device id":            {nil, func(c *clientv1.Connect) { c.DeviceId = "a b" }, codeInvalid, "connect.device_id", errcode.CloseProtocol, metrics.RejectProtocol},
		"a client name with a line break": {nil, func(c *clientv1.Connect) { c.Client = "x\n" }, codeInvalid, "connect.client", errcode.CloseProtocol, metrics.RejectProtocol},
		"a position in no conversation": {nil, func(c *clientv1.Connect) {
			c.Resume = []*clientv1.Position{{ConversationId: "x"}}
		}, codeInvalid, "connect.resume[0].conversation_id", errcode.CloseProtocol, metrics.RejectProtocol},
		"a position beyond any event": {nil, func(c *clientv1.Connect) {
			c.Resume = []*clientv1.Position{{ConversationId: groupID, Seq: protocol.MaxSeq + 1}}
		}, codeInvalid, "connect.resume[0].seq", errcode.CloseProtocol, metrics.RejectProtocol},
		"a token with another signature": {nil, func(c *clientv1.Connect) { c.Token = "x" }, codeUnauthenticated, "connect.token", errcode.CloseUnauthenticated, metrics.RejectToken},
		"an expired token":               {func(s *stage) { s.verifier().err = auth.ErrExpired }, nil, codeUnauthenticated, "connect.token", errcode.CloseTokenExpired, metrics.RejectExpired},
		"keys are unavailable":           {func(s *stage) { s.verifier().err = auth.ErrKeysUnavailable }, nil, codeUnavailable, "", errcode.CloseUnavailable, metrics.RejectUnavailable},
		"a token of tomorrow":            {func(s *stage) { s.verifier().err = auth.ErrNotYetValid }, nil, codeUnavailable, "", errcode.CloseUnavailable, metrics.RejectUnavailable},
		"the store is unavailable":       {func(s *stage) { s.store.Set(func() { s.store.Down = true }) }, nil, codeUnavailable, "", errcode.CloseUnavailable, metrics.RejectUnavailable},
		"a revoked token": {func(s *stage) {
			s.store.Revocations = []*historyv1.Revocation{{UserId: "ann", BeforeMs: 1_000_000}}
		}, nil, codeUnauthenticated, "connect.token", errcode.CloseUnauthenticated, metrics.RejectRevoked},
		"a token that does not say when it was issued, of a user whose tokens were revoked": {func(s *stage) {
			s.store.Revocations = []*historyv1.Revocation{{UserId: "ann", BeforeMs: 1}}
			s.verifier().set("undated", auth.Claims{User: "ann"})
		}, func(c *clientv1.Connect) { c.Token = "undated" }, codeUnauthenticated, "connect.token", errcode.CloseUnauthenticated, metrics.RejectRevoked},
		"too many of one user": {func(s *stage) {
			for range 3 {
				s.connect("ann", frame.Proto)
			}
		}, nil, conversationv1.ErrorCode_ERROR_CODE_LIMIT, "", errcode.CloseOverloaded, metrics.RejectLimit},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			token := s.token("ann")
			if c.arrange != nil {
				c.arrange(s)
			}
			connect := &clientv1.Connect{Token: token, DeviceId: "d"}
			if c.spoil != nil {
				c.spoil(connect)
			}
			client := s.open(frame.Proto)
			answer := client.ask(connectFrame(connect))
			require.Equal(t, c.code, answer.GetError().GetCode(), "%v", answer)
			require.Equal(t, c.field, answer.GetError().GetField())
			client.requireClosed(c.close)
			require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Rejects[c.reject]), 0)
			require.NotContains(t, s.logs.String(), token, "tokens are not logged")
		})
	}
}

// The first frame must be connect, and no other frame may be.
func TestTheFirstFrameIsConnect(t *testing.T) {
	s := newStage(t)
	c := s.open(frame.Proto)
	answer := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{}}})
	require.Equal(t, codeProtocol, answer.GetError().GetCode())
	c.requireClosed(errcode.CloseProtocol)
	c = s.connect("ann", frame.Proto)
	require.Equal(t, codeProtocol, c.ask(connectFrame(&clientv1.Connect{Token: s.token("ann")})).GetError().GetCode())
	c.quiet()
}

// The connected frame contains the state of the conversations, and the settings for the client.
func TestConnectedSaysHowThingsAre(t *testing.T) {
	s := newStage(t)
	s.level = 7
	s.store.Put(branch(nil, 4, "x"))
	c := s.open(frame.JSON)
	connected := c.connectWith(&clientv1.Connect{Token: s.token("ann"), DeviceId: "d"})
	require.Equal(t, "ann", connected.GetUserId())
	require.Equal(t, c.id, ids.Connection(connected.GetConnectionId()))
	require.Equal(t, uint32(7), connected.GetLevel())
	require.Equal(t, uint32(25_000), connected.GetHeartbeatMs())
	require.Equal(t, uint32(64<<10), connected.GetMaxFrameBytes())
	require.Len(t, connected.GetConversations(), 1)
	require.Equal(t, uint64(4), connected.GetConversations()[0].GetHead())
	require.False(t, connected.GetMore())
	sessions, users := s.Count()
	require.Equal(t, []int{1, 1}, []int{sessions, users})
}

// The connect frame determines the encoding of events.
func TestBodyBytesAreAskedForInConnect(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON, frame.JSONWithBytes} {
		s := newStage(t)
		log := branch(nil, 6, "hello")
		s.store.Put(log)
		c := s.connect("ann", codec, position(log[4]))
		event := c.next().GetEvent()
		require.Equal(t, uint64(6), event.GetSeq())
		require.Equal(t, codec != frame.JSON, len(event.GetBodyBytes()) > 0, codec)
		page := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: groupID}}}).GetPage()
		require.Len(t, page.GetEvents(), 6)
		require.Equal(t, codec != frame.JSON, len(page.GetEvents()[0].GetBodyBytes()) > 0, codec)
	}
}

func TestAResumeHashIsEightBytes(t *testing.T) {
	for size, field := range map[int]string{0: "", 1: "resume[0].hash", 7: "resume[0].hash", 8: "", 32: "resume[0].hash"} {
		got, _ := checkConnect(&clientv1.Connect{DeviceId: "d", Resume: []*clientv1.Position{{ConversationId: groupID, Seq: 1, Hash: make([]byte, size)}}})
		require.Equal(t, field, got, "%d bytes", size)
	}
	got, _ := checkConnect(&clientv1.Connect{DeviceId: "d", Start: 99})
	require.Equal(t, "start", got, "another endpoint may be less strict than the codecs")
}

// Without a position, the client's start setting decides where it begins.
func TestWhereAConversationBegins(t *testing.T) {
	summary := &historyv1.Summary{ConversationId: groupID, Head: 9, JoinedSeq: 3, Cursor: &conversationv1.Cursor{DeliveredSeq: 5}}
	behind := &historyv1.Summary{ConversationId: groupID, Head: 9, JoinedSeq: 3, Cursor: &conversationv1.Cursor{DeliveredSeq: 1}}
	for name, c := range map[string]struct {
		connect *clientv1.Connect
		summary *historyv1.Summary
		want    uint64
	}{
		"at the head":                              {&clientv1.Connect{}, summary, 9},
		"at the first":                             {&clientv1.Connect{Start: clientv1.Start_START_FIRST}, summary, 2},
		"at what was delivered":                    {&clientv1.Connect{Start: clientv1.Start_START_DELIVERED}, summary, 5},
		"not before the membership":                {&clientv1.Connect{Start: clientv1.Start_START_DELIVERED}, behind, 2},
		"at the position":                          {&clientv1.Connect{Resume: []*clientv1.Position{{ConversationId: groupID, Seq: 4}}}, summary, 4},
		"at the head if the position is beyond it": {&clientv1.Connect{Resume: []*clientv1.Position{{ConversationId: groupID, Seq: 40}}}, summary, 9},
	} {
		require.Equal(t, ids.Seq(c.want), planResume(c.connect, []*historyv1.Summary{c.summary}).base(c.summary), name)
	}
}

// A client that is on another branch gets no more events of the conversation, whatever happens in it.
func TestAForkedConversationIsNotJoinedAgain(t *testing.T) {
	log := branch(nil, 6, "kept")
	undone := branch(log[:3], 9, "undone")
	for name, left := range map[string]uint64{"of a member": 0, "of a former member": 6} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(log)
			s.store.Set(func() { s.store.Left = ids.Seq(left) })
			c := s.connect("ann", frame.JSON, position(undone[8]))
			c.requireForked(6, 9)
			require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Forks), 0)
			s.store.Set(func() { s.store.Left, s.store.Lists = 0, 0 })
			s.Joined("ann", groupID, 1) // by a notice, or by comparing the list
			s.store.Set(func() { require.Zero(t, s.store.Lists, "it is not even looked up") })
			c.quiet()
			require.Nil(t, c.subscription())
		})
	}
}

// A user who becomes a member while connected is subscribed, and gets the events from the first one of the membership on. A
// notice that is late, repeated or wrong does no harm.
func TestAJoinIsAttached(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.Proto)
	s.Joined("ann", groupID, 1) // a notice of a conversation that does not exist
	c.quiet()
	log := branch(nil, 5, "x")
	s.store.Put(log)
	s.store.Set(func() { s.store.Joined = 3 })
	s.Joined("ann", groupID, 1)
	attached := c.next().GetAttached().GetConversation()
	require.Equal(t, groupID, attached.GetConversationId())
	require.Equal(t, uint64(3), attached.GetJoinedSeq())
	require.Equal(t, []uint64{3, 4, 5}, c.seqs(3))
	s.Joined("ann", groupID, 1)
	s.Joined("bob", groupID, 1) // a notice for a user who is not connected
	c.quiet()
	log = branch(log, 6, "x")
	s.store.Put(log)
	s.live(log[5])
	require.Equal(t, []uint64{6}, c.seqs(1))
}

// A user who is added needs no notice if the gateway has the conversation's events anyway, for another member.
func TestAMemberAddedWithoutANoticeIsServed(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	s.store.Set(func() { s.store.ByLog = true })
	cem, dan := s.connect("cem", frame.Proto), s.connect("dan", frame.Proto)
	log = append(log, gatewaytest.Next(log, "cem", &conversationv1.Body{Action: &conversationv1.Body_AddMembers{
		AddMembers: &conversationv1.AddMembers{Members: []string{"dan"}},
	}}))
	log = branch(log, 5, "x")
	s.store.Put(log)
	s.live(log[3])
	s.live(log[4])
	require.Equal(t, []uint64{4, 5}, cem.seqs(2))
	require.Equal(t, uint64(4), dan.next().GetAttached().GetConversation().GetJoinedSeq())
	require.Equal(t, []uint64{4, 5}, dan.seqs(2))
}

// A user who leaves is sent the last event that they may read, and the membership is looked up again: the notice of a new
// one may have come before.
func TestARemovalDetaches(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	c := s.connect("bob", frame.Proto)
	removal := gatewaytest.Next(log, "cem", &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: "bob"}}})
	log = append(log, removal)
	added := gatewaytest.Next(log, "cem", &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"bob"}}}})
	log = append(log, added)
	s.store.Put(log)
	s.store.Set(func() { s.store.Joined, s.store.Earlier = 5, 4 })
	s.live(removal)
	require.Equal(t, []uint64{4}, c.seqs(1))
	require.Equal(t, uint64(4), c.next().GetDetached().GetLast())
	require.Equal(t, uint64(5), c.next().GetAttached().GetConversation().GetJoinedSeq())
	require.Equal(t, []uint64{5}, c.seqs(1))
}

// Of a conversation that was left while the client was away, the client is sent the events up to the end.
func TestAFormerConversationIsSentToItsEnd(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 6, "x")
	s.store.Put(log)
	s.store.Set(func() { s.store.Left = 6 })
	c := s.connect("ann", frame.JSON, position(log[3]))
	require.Equal(t, []uint64{5, 6}, c.seqs(2))
	require.Equal(t, uint64(6), c.next().GetDetached().GetLast())
	c = s.connect("bob", frame.JSON, &clientv1.Position{ConversationId: "g0123456789abcdefghijklmnoo", Seq: 3})
	s.store.Set(func() { s.store.Log = nil })
	require.Zero(t, c.next().GetDetached().GetLast(), "a conversation that was never the user's")
}

// A lookup that fails is tried again: the client misses nothing, and stays connected.
func TestAJoinThatCannotBeLookedUp(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.Proto)
	s.store.Set(func() { s.store.Down = true })
	s.Joined("ann", groupID, 1)
	require.Eventually(t, func() bool {
		return strings.Contains(s.logs.String(), "a client could not be told of a membership yet")
	}, patience, time.Millisecond)
	s.store.Set(func() { s.store.Log, s.store.Down = branch(nil, 2, "x"), false })
	require.Equal(t, groupID, c.next().GetAttached().GetConversation().GetConversationId())
	require.Equal(t, []uint64{1, 2}, c.seqs(2))
	c.quiet()
}

// Timers: no connect frame, heartbeats, silence, the token's expiry.
func TestWhatTimeAsksFor(t *testing.T) {
	s := newStage(t)
	before := time.Now()
	idle := s.open(frame.Proto)
	s.Sweep(before.Add(9 * time.Second))
	require.False(t, idle.link.Closing())
	s.Sweep(time.Now().Add(11 * time.Second))
	idle.requireClosed(errcode.CloseConnectTimeout)

	log := branch(nil, 3, "x")
	s.store.Put(log)
	c := s.connect("ann", frame.Proto)
	now := time.Now().Add(26 * time.Second)
	s.Sweep(now)
	require.Empty(t, c.next().GetHeartbeat().GetHeads(), "nothing moved since the list")
	log = branch(log, 4, "x")
	s.store.Put(log)
	s.live(log[3])
	c.seqs(1)
	now = now.Add(26 * time.Second)
	s.Sweep(now)
	require.Equal(t, uint64(4), c.next().GetHeartbeat().GetHeads()[0].GetSeq())
	c.say(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}})
	c.quiet()
	require.Zero(t, c.beatPending.Load())
	for range maxSilentBeats {
		now = now.Add(26 * time.Second)
		s.Sweep(now)
		require.NotNil(t, c.next().GetHeartbeat())
	}
	s.Sweep(now.Add(26 * time.Second))
	c.requireClosed(errcode.CloseNoPong)
}

func TestATokenExpires(t *testing.T) {
	s := newStage(t)
	expires := time.Now().Add(90 * time.Second).Truncate(time.Second)
	s.verifier().set("short", auth.Claims{User: "ann", IssuedAt: time.Unix(1000, 0), Expires: expires})
	c := s.open(frame.Proto)
	require.Equal(t, expires.UnixMilli(), c.connectWith(&clientv1.Connect{Token: "short", DeviceId: "d"}).GetTokenExpiresMs())
	c.nextBeat.Store(1 << 62)
	s.Sweep(expires.Add(-61 * time.Second))
	c.quiet()
	s.Sweep(expires.Add(-59 * time.Second))
	s.Sweep(expires.Add(-58 * time.Second))
	require.Equal(t, expires.UnixMilli(), c.next().GetTokenExpiring().GetExpiresMs())
	c.quiet()

	later := expires.Add(time.Hour)
	s.verifier().set("longer", auth.Claims{User: "ann", IssuedAt: time.Unix(2000, 0), Expires: later})
	require.Equal(t, later.UnixMilli(), c.ask(refreshFrame("longer")).GetRefreshed().GetTokenExpiresMs())
	s.Sweep(expires.Add(time.Second))
	c.quiet()
	s.Sweep(later)
	c.requireClosed(errcode.CloseTokenExpired)
}

// A token may name the device and the user's display name; the device then takes the place of the one that the client chose.
func TestClaimsOfTheDeviceAndTheName(t *testing.T) {
	s := newStage(t)
	s.verifier().set("all", auth.Claims{User: "ann", Device: "phone", Name: "Ann B.", IssuedAt: time.Unix(1000, 0)})
	s.open(frame.Proto).connectWith(&clientv1.Connect{Token: "all", DeviceId: "chosen"})
	described := s.List("ann")
	require.Len(t, described, 1)
	require.Equal(t, "phone", described[0].GetDeviceId())
	require.Equal(t, "Ann B.", described[0].GetName())
}

func refreshFrame(token string) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: token}}}
}

// A refresh that is refused leaves the old token in force.
func TestRefreshesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(s *stage)
		token   string
		code    conversationv1.ErrorCode
	}{
		"a bad token":              {nil, "x", codeUnauthenticated},
		"of another user":          {func(s *stage) { s.token("bob") }, "token of bob", conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN},
		"keys are unavailable":     {func(s *stage) { s.verifier().err = auth.ErrKeysUnavailable }, "token of ann", codeUnavailable},
		"not valid yet":            {func(s *stage) { s.verifier().err = auth.ErrNotYetValid }, "token of ann", codeUnavailable},
		"of another device":        {func(s *stage) { s.verifier().set("other", auth.Claims{User: "ann", Device: "other"}) }, "other", conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN},
		"the store is unavailable": {func(s *stage) { s.store.Set(func() { s.store.Down = true }) }, "token of ann", codeUnavailable},
		"revoked meanwhile":        {func(s *stage) { s.mu.Lock(); s.users["ann"].revoked = 1_000_000; s.mu.Unlock() }, "token of ann", codeUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			client := s.connect("ann", frame.Proto)
			if c.arrange != nil {
				c.arrange(s)
			}
			require.Equal(t, c.code, client.ask(refreshFrame(c.token)).GetError().GetCode())
			require.False(t, client.link.Closing())
		})
	}
}

// A revocation closes the sessions whose tokens were issued before it, however the gateway learns of it.
func TestARevocationClosesSessions(t *testing.T) {
	revoked := []*historyv1.Revocation{{UserId: "ann", BeforeMs: 1_500_000}}
	for name, hear := range map[string]func(s *stage, newer *client){
		"by a notice":               func(s *stage, _ *client) { s.Revoke("ann", 1_500_000) },
		"by reading from the store": func(s *stage, _ *client) { _, _ = s.readRevocations(s.t.Context(), 0) },
		"by a refresh": func(_ *stage, newer *client) {
			require.NotNil(newer.t, newer.ask(refreshFrame("newer")).GetRefreshed())
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.verifier().set("newer", auth.Claims{User: "ann", IssuedAt: time.Unix(2000, 0)})
			old := s.connect("ann", frame.Proto)
			newer := s.open(frame.Proto)
			newer.connectWith(&clientv1.Connect{Token: "newer", DeviceId: "d"})
			bob := s.connect("bob", frame.Proto)
			s.store.Set(func() { s.store.Revocations = revoked })
			hear(s, newer)
			old.requireClosed(errcode.CloseUnauthenticated)
			newer.quiet()
			bob.quiet()
			require.Eventually(t, func() bool { return testutil.ToFloat64(s.metrics.Revoked) == 1 }, patience, 50*time.Microsecond)
			require.Equal(t, int64(1_500_000), s.RevokedBefore("ann"))
			require.Zero(t, s.RevokedBefore("bob"))
		})
	}
}

// Frames above the rate are refused; a client that continues is closed.
func TestTheFrameRate(t *testing.T) {
	s := newStage(t, func(cfg *Config) { cfg.FrameRate = 0.001 })
	c := s.open(frame.Proto)
	var flood sync.WaitGroup
	flood.Go(func() {
		read := frame.AppendClient(nil, frame.Proto, &clientv1.ClientFrame{Id: 1, Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{}}})
		for err := error(nil); err == nil; {
			err = c.far.Send(read)
		}
	})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, c.next().GetError().GetCode())
	c.requireClosed(errcode.CloseFlood)
	flood.Wait()
	require.InDelta(t, maxAbuse+1, testutil.ToFloat64(s.metrics.Limits[metrics.LimitFrameRate]), 0)
}

// After a stall the acknowledgements and pongs of an honest client arrive all at once. They are handled, and no reason to stay away.
func TestAcknowledgementsAfterAStallAreNoFlood(t *testing.T) {
	s := newStage(t, func(cfg *Config) { cfg.FrameRate = 0.1 })
	c := s.connect("ann", frame.Proto)
	pong := frame.AppendClient(nil, frame.Proto, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}})
	for range 10 * maxAbuse {
		require.NoError(t, c.far.Send(pong))
	}
	require.False(t, c.link.Closing())
	var flood sync.WaitGroup
	flood.Go(func() {
		for err := error(nil); err == nil; {
			err = c.far.Send(pong)
		}
	})
	c.requireClosed(errcode.CloseOverloaded)
	flood.Wait()
}

// Frames that cannot be decoded are answered; after too many the session is closed.
func TestBadFrames(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.JSON)
	for range maxBadFrames {
		require.NoError(t, c.far.Send([]byte(`{"id":"5","nonsense":{}}`)))
		answer := c.next()
		require.Equal(t, uint64(5), answer.GetId())
		require.Equal(t, codeInvalid, answer.GetError().GetCode())
	}
	c.requireClosed(errcode.CloseProtocol)
	early := s.open(frame.JSON)
	require.NoError(t, early.far.Send([]byte(`{`)))
	answer := early.next()
	require.Equal(t, codeInvalid, answer.GetError().GetCode())
	require.Zero(t, answer.GetId(), "the id cannot be read")
	early.requireClosed(errcode.CloseProtocol)
}

// Frames after a bad one in the same message are handled.
func TestABadFrameTakesNothingWithIt(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.JSON)
	good := frame.AppendClient(nil, frame.JSON, &clientv1.ClientFrame{Id: 6, Request: &clientv1.ClientFrame_ListConversations{ListConversations: &clientv1.ListConversations{}}})
	require.NoError(t, c.far.Send(append([]byte(`{"id":"5","nonsense":{}}`+"\n"), good...)))
	require.Equal(t, uint64(5), c.next().GetId())
	answer := c.next()
	require.Equal(t, uint64(6), answer.GetId())
	require.NotNil(t, answer.GetConversations())
}

func ackFrame(id uint64, positions ...*clientv1.AckPosition) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Id: id, Request: &clientv1.ClientFrame_Ack{Ack: &clientv1.Ack{Positions: positions}}}
}

// One position that does not exist does not affect the others, and is answered only if the frame has an id.
func TestABadPositionOfAnAcknowledgementIsSkipped(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	c := s.connect("ann", frame.Proto)
	bad := &clientv1.AckPosition{ConversationId: groupID, Delivered: 9}
	good := &clientv1.AckPosition{ConversationId: groupID, Delivered: 3, Read: 2}
	unknown := &clientv1.AckPosition{ConversationId: "g0123456789abcdefghijklmnoo", Delivered: 1}
	c.say(ackFrame(0, bad, good, bad, unknown))
	c.quiet()
	s.deps.Acks.pass()
	passed := (<-s.passed).GetAcks()
	require.Len(t, passed, 1)
	require.Equal(t, uint64(3), passed[0].GetDeliveredSeq())
	require.Equal(t, uint64(2), passed[0].GetReadSeq())
	require.InDelta(t, 2, testutil.ToFloat64(s.metrics.EarlyAcks), 0)

	c.nextID = 100
	c.say(ackFrame(4, good, bad, bad))
	f := c.next()
	require.Equal(t, uint64(4), f.GetId())
	require.Equal(t, "ack.positions[1]", f.GetError().GetField())
	c.quiet()

	// An early acknowledgement now and then is honest; nothing but early ones for long is not.
	for range 2 {
		c.say(ackFrame(0, good))
		for range maxEarlyAcks - 1 {
			c.say(ackFrame(0, bad))
		}
	}
	c.quiet()
	c.say(ackFrame(0, bad))
	c.requireClosed(errcode.CloseAhead)
}

// Of an acknowledgement with too many positions the first ones count; it is refused if it has an id, and a client that sends
// such frames repeatedly is closed.
func TestAnAcknowledgementOfTooManyPositions(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	c := s.connect("ann", frame.Proto)
	long := make([]*clientv1.AckPosition, protocol.MaxAckPositions+1)
	for i := range long {
		long[i] = &clientv1.AckPosition{}
	}
	long[0] = &clientv1.AckPosition{ConversationId: groupID, Delivered: 2}
	long[protocol.MaxAckPositions] = &clientv1.AckPosition{ConversationId: groupID, Delivered: 3}
	for range maxBadFrames - 2 {
		c.say(ackFrame(0, long...))
	}
	c.quiet()
	c.nextID = 100
	c.say(ackFrame(4, long...))
	f := c.next()
	require.Equal(t, uint64(4), f.GetId())
	require.Equal(t, "ack.positions", f.GetError().GetField())
	s.deps.Acks.pass()
	passed := (<-s.passed).GetAcks()
	require.Len(t, passed, 1)
	require.Equal(t, uint64(2), passed[0].GetDeliveredSeq())
	c.say(ackFrame(0, long...))
	c.requireClosed(errcode.CloseProtocol)
}

// Acknowledgements are sent together, only the newest values, and again if that failed.
func TestAcknowledgementsArePassedOn(t *testing.T) {
	s := newStage(t)
	acks := s.deps.Acks
	acks.pass()
	require.Empty(t, s.passed)
	acks.Add(groupID, "ann", 3, 1)
	acks.Add(groupID, "ann", 5, 0)
	s.refuse = errors.New("away")
	acks.pass()
	s.refuse = nil
	acks.Add(groupID, "ann", 4, 2)
	acks.pass()
	passed := <-s.passed
	require.Len(t, passed.GetAcks(), 1)
	require.Equal(t, uint64(5), passed.GetAcks()[0].GetDeliveredSeq())
	require.Equal(t, uint64(2), passed.GetAcks()[0].GetReadSeq())
	for i := range acksPerMessage + 1 {
		acks.Add(groupID, ids.User("u"+time.Duration(i).String()), 1, 1)
	}
	acks.pass()
	first, second := <-s.passed, <-s.passed
	require.Equal(t, acksPerMessage+1, len(first.GetAcks())+len(second.GetAcks()))
	require.LessOrEqual(t, max(len(first.GetAcks()), len(second.GetAcks())), acksPerMessage)
}

// A heartbeat forwards acknowledgements again, because the first message may have been lost.
func TestAHeartbeatPassesAcknowledgementsOnAgain(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	c := s.connect("ann", frame.Proto)
	c.say(ackFrame(0, &clientv1.AckPosition{ConversationId: groupID, Delivered: 3, Read: 3}))
	c.quiet()
	s.deps.Acks.pass()
	<-s.passed
	s.Sweep(time.Now().Add(26 * time.Second))
	require.NotNil(t, c.next().GetHeartbeat())
	s.deps.Acks.pass()
	require.Equal(t, uint64(3), (<-s.passed).GetAcks()[0].GetDeliveredSeq())
}

// A client has only a few calls of history under way.
func TestCallsAtATimeAreLimited(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	c := s.connect("ann", frame.Proto)
	read := &clientv1.ClientFrame{Id: 9, Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: groupID}}}
	s.store.Set(func() { // the store answers nothing while this runs
		for range protocol.MaxOpenRequests + 1 {
			c.say(read)
		}
		answer := c.next()
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, answer.GetError().GetCode())
		require.NotZero(t, answer.GetError().GetRetryAfterMs())
	})
	for range protocol.MaxOpenRequests {
		require.NotNil(t, c.next().GetPage())
	}
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Limits[metrics.LimitCalls]), 0)
}

// A submit is published to the broker; the client gets the frames that it asked for.
func TestASubmitIsAnsweredWithItsOutcome(t *testing.T) {
	s := newStage(t)
	c := s.open(frame.Proto)
	c.connectWith(&clientv1.Connect{Token: s.token("ann"), DeviceId: "d", Accepted: true})
	c.say(&clientv1.ClientFrame{Id: 7, Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
		ConversationId: groupID, CommandId: "0192f3c0-0000-7000-8000-000000000001",
		Body: &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "hello"}}},
	}}})
	submission := <-s.submits
	require.Equal(t, "ann", submission.Command.GetSender())
	submission.Accepted()
	require.Equal(t, uint64(7), c.next().GetAccepted().GetRequestId())
	submission.Done(&conversationv1.Outcome{ConversationId: groupID, Seq: 4})
	f := c.next()
	require.Equal(t, uint64(7), f.GetId())
	require.Equal(t, uint64(4), f.GetOutcome().GetSeq())

	quiet := s.connect("bob", frame.Proto)
	quiet.Accepted(1)
	quiet.quiet()
}

// A push contains no error, and a request without an id gets no answer.
func TestErrorsAreAnswers(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.JSON)
	c.refuse(0, codeInvalid, "", "x")
	c.refuseLimited(0, "x")
	c.quiet()
	require.Equal(t, codeInvalid, c.ask(&clientv1.ClientFrame{}).GetError().GetCode())
	require.Equal(t, codeInvalid, c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{}}}).GetError().GetCode())
	s.store.Set(func() { s.store.Down = true })
	answer := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: groupID}}})
	require.Equal(t, codeUnavailable, answer.GetError().GetCode())
	require.Contains(t, s.logs.String(), "a call of the history service failed")
}

// A gateway that stops asks its clients to reconnect elsewhere, and accepts no more.
func TestAStopSendsClientsAway(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.Proto)
	sessions := s.Close()
	require.Len(t, sessions, 1)
	sessions[0].GoAway(3 * time.Second)
	require.Equal(t, uint32(3000), c.next().GetGoAway().GetReconnectDelayMs())
	c.requireClosed(errcode.CloseGoingAway)
	require.Nil(t, s.Begin(c.link, s.NextNumber()))
}

// A user's allowance is not refilled by reconnecting, and a user without sessions is removed once it is full.
func TestUsersAreForgotten(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.Proto)
	s.users["ann"].caller.Commands.AllowN(time.Now(), 100)
	c.far.Close(1000)
	c.requireForgotten()
	s.Sweep(time.Now())
	require.Len(t, s.users, 1, "the allowance is used")
	s.users["ann"].caller.Commands.SetLimit(1e9)
	require.Eventually(t, func() bool { s.Sweep(time.Now()); return len(s.users) == 0 }, patience, time.Millisecond)
}

// Operators see the sessions, and the standings of those that ended.
func TestSessionsAreDescribed(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	ann, bob := s.connect("ann", frame.Proto, position(log[0])), s.connect("bob", frame.JSON)
	ann.seqs(2)
	s.open(frame.Proto)
	page, more := s.ListPage("", "", 2)
	require.True(t, more)
	rest, more := s.ListPage("", ids.Connection(page[1].GetConnectionId()), 2)
	require.False(t, more)
	require.Len(t, append(page, rest...), 3)
	list := s.List("ann")
	require.Len(t, list, 1)
	require.Equal(t, "d-ann", list[0].GetDeviceId())
	require.Equal(t, uint32(1), list[0].GetConversations())
	require.Equal(t, uint64(3), list[0].Standings()[0].GetSent())
	require.Equal(t, uint64(1), list[0].Standing(groupID).GetAcknowledged())
	require.Nil(t, list[0].Standing("x"))
	require.Empty(t, s.List("eve"))
	_, found := s.Get("x")
	require.False(t, found)
	one, found := s.Get(bob.id)
	require.True(t, found)
	require.True(t, one.Close(errcode.CloseDisconnected, "by an operator"))
	require.False(t, one.Close(errcode.CloseDisconnected, "again"))
	bob.requireClosed(errcode.CloseDisconnected)
	ann.far.Lose()
	ann.requireForgotten()
	closed, _ := s.deps.Closed.Of("ann")
	require.Equal(t, uint64(1), closed[0].Standings[0].GetAcknowledged())
	closed, _ = s.deps.Closed.Of("bob")
	require.Empty(t, closed[0].Standings, "bob had everything")
	sum, most := s.QueuedBytes()
	require.Zero(t, sum+most)
}

// A session that is still connecting is listed with its user for operators: a revocation counts and closes it as well.
func TestASessionThatIsBeingLetInIsOneOfItsUsers(t *testing.T) {
	s := newStage(t)
	token := s.token("ann")
	c := s.open(frame.Proto)
	s.store.Set(func() { // the store answers nothing while this runs
		c.say(connectFrame(&clientv1.Connect{Token: token, DeviceId: "phone"}))
		require.Eventually(t, func() bool { return len(s.List("ann")) == 1 }, patience, 50*time.Microsecond)
		require.Equal(t, "phone", s.List("ann")[0].GetDeviceId())
		page, _ := s.ListPage("", "", 1)
		require.Empty(t, page[0].GetUserId(), "the session is not open yet")
		require.True(t, s.List("ann")[0].Close(errcode.CloseDisconnected, "by an operator"))
	})
	c.requireClosed(errcode.CloseDisconnected)
}
