package e2e_test

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/gateway"
)

// smallSockets take little from the beginning: small packets keep the other side's buffer small, too.
var smallSockets = &net.Dialer{Control: func(_, _ string, connection syscall.RawConn) (err error) {
	controlled := connection.Control(func(fd uintptr) {
		err = errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536),
		)
	})
	return errors.Join(controlled, err)
}}

// TestSlowClientsDoNotKeepOthersFromJoining has one user take up everything that former conversations are read with, by asking
// for one on many connections that read nothing. Who becomes a member of something meanwhile must be told of it.
func TestSlowClientsDoNotKeepOthersFromJoining(t *testing.T) {
	s := newStage(t, func(cfg *gateway.Config) {
		cfg.SendQueueBytes, cfg.WriteTimeout, cfg.Heartbeat = 64<<10, time.Hour, time.Hour
	})
	s.commit(group("bob"))
	large := &conversationv1.Message{Text: strings.Repeat("x", 8000), Metadata: map[string]string{}}
	for i := range 16 {
		large.Metadata[strconv.Itoa(i)] = strings.Repeat("x", 1000)
	}
	for range 250 { // more than sockets hold, however large the sender's are
		s.commit(&conversationv1.Body{Action: &conversationv1.Body_Message{Message: large}})
	}
	s.commit(removeBob())
	const slow = 16
	for range slow {
		dialWith(t, smallSockets, s.url(), frame.JSON).connect("bob", &clientv1.Position{ConversationId: s.id, Seq: 1})
	}
	require.Eventually(t, func() bool {
		list, err := s.gw.Server().ListConnections(t.Context(), &gatewayv1.ListConnectionsRequest{UserId: "bob"})
		require.NoError(t, err)
		waiting := 0
		for _, c := range list.GetConnections() {
			if c.GetQueuedBytes() > 32<<10 {
				waiting++
			}
		}
		return waiting == slow
	}, patience, patience/1000)

	cem := s.login("cem")
	s.commit(&conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"cem"}}}})
	joined, err := (&brokerv1.Joined{UserIds: []string{"cem"}, ConversationId: s.id}).MarshalVT()
	require.NoError(t, err)
	require.NoError(t, s.nc.Publish(broker.JoinedSubject, joined))
	require.Equal(t, s.id, cem.until(func(f *clientv1.ServerFrame) bool { return f.GetAttached() != nil }).GetAttached().GetConversation().GetConversationId())
}
