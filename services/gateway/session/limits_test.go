package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/link"
)

func (s *stage) limitsOf(user string) *clientv1.Limits {
	return s.open(frame.JSON).connectWith(&clientv1.Connect{Token: s.token(user), DeviceId: "d"}).GetLimits()
}

// The limits that a client is told are those of the configuration in force, and of the protocol.
func TestConnectedCarriesTheLimitsInForce(t *testing.T) {
	s := newStage(t, func(cfg *Config) {
		cfg.MaxFrameBytes, cfg.MaxConnectionsPerUser = 50_000, 2
		cfg.FrameRate, cfg.CommandRatePerUser, cfg.ReadRatePerUser, cfg.AddRatePerUser = 0.25, 1.01, 5, 3
	})
	limits := s.limitsOf("ann")
	require.Equal(t, uint32(50_000), limits.GetMaxFrameBytes())
	require.Equal(t, uint32(2), limits.GetMaxConnectionsPerUser())
	for name, c := range map[string]struct {
		rate             *clientv1.Rate
		perMinute, burst uint32
	}{
		"frames":   {limits.GetFrameRate(), 15, 2},
		"commands": {limits.GetCommandRate(), 60, 10},
		"reads":    {limits.GetReadRate(), 300, 50},
		"adds":     {limits.GetAddRate(), 180, protocol.MaxMembers},
	} {
		require.Equal(t, c.perMinute, c.rate.GetPerMinute(), name)
		require.Equal(t, c.burst, c.rate.GetBurst(), name)
	}
	require.Equal(t, uint32(protocol.MaxTextBytes), limits.GetMaxTextBytes())
	require.Equal(t, uint32(protocol.MaxResumePositions), limits.GetMaxResumePositions())

	unlimited := newStage(t).limitsOf("ann") // without rates of reads and adds
	require.Nil(t, unlimited.GetReadRate())
	require.Nil(t, unlimited.GetAddRate())
	require.NotNil(t, unlimited.GetFrameRate())
}

// watched is a link that notes how many requests of its session are open when a message is queued.
type watched struct {
	link.Link

	session *Session
	open    chan int32
}

func (w *watched) Queue(message []byte) (first bool) {
	w.open <- w.session.calls.Load()
	return w.Link.Queue(message)
}

// A request is no longer open when its answer is sent: a client that asks again at once is within the number of requests that it
// was told.
func TestAnAnsweredRequestIsNoLongerOpen(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	w := &watched{open: make(chan int32, 100)}
	s.wrap = func(l link.Link) link.Link {
		w.Link = l
		return w
	}
	c := s.open(frame.Proto)
	w.session = c.Session
	c.connectWith(&clientv1.Connect{Token: s.token("ann"), DeviceId: "d"})
	require.Zero(t, <-w.open)
	for _, ask := range []*clientv1.ClientFrame{
		{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: groupID}}},
		{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: "g" + groupID[2:] + "0"}}}, // refused by the store
		{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: s.token("ann")}}},
		{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: s.token("bob")}}},
		{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: "unknown"}}},
	} {
		c.ask(ask)
		require.Zero(t, <-w.open, ask)
	}
}
