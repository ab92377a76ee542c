package attack_test

import (
	"fmt"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
)

const (
	resumers = 20
	rounds   = 3
	// callsPerConnect is how often one connect asks the history service, whatever it resumes: for the conversations of the user,
	// and for all those that are not among them.
	callsPerConnect = 2
)

var resumes = []attack{
	{
		name: "resuming unknown conversations", tries: "20 clients connect at once, three times each, and resume 500 conversations that do not exist", seen: "a client is told for each conversation that it is not a member; a connect makes two history calls, whatever the number of conversations",
		bound: bound{sockets: resumers, megabytes: 64, calls: resumers * rounds * callsPerConnect}, run: resume,
	},
}

func resume(s *target) {
	for round := range rounds {
		before := s.historyCalls()
		var clients []*client
		for i := range resumers {
			connect := &clientv1.Connect{Token: token(s, fmt.Sprint("eve", i)), DeviceId: "d"}
			for j := range protocol.MaxResumePositions {
				connect.Resume = append(connect.Resume, &clientv1.Position{
					ConversationId: string(conversation.GroupID("nobody", ids.Command(fmt.Sprint(round, i, j)))), Seq: 7, Hash: []byte("12345678"),
				})
			}
			c := s.socket()
			clients = append(clients, c)
			c.next++
			request := &clientv1.ClientFrame{Id: c.next, Request: &clientv1.ClientFrame_Connect{Connect: connect}}
			require.NoError(s, c.ws.WriteMessage(websocket.TextMessage, frame.AppendClient(nil, frame.JSON, request)))
		}
		for _, c := range clients {
			left := map[string]bool{}
			for len(left) < protocol.MaxResumePositions {
				require.NoError(s, c.read(func(f *clientv1.ServerFrame) {
					require.Nil(s, f.GetError())
					if detached := f.GetDetached(); detached != nil {
						require.Zero(s, detached.GetLast())
						left[detached.GetConversationId()] = true
					}
				}))
			}
		}
		require.LessOrEqual(s, s.historyCalls()-before, resumers*callsPerConnect)
		if round == rounds-1 {
			s.during()
		}
		for _, c := range clients {
			c.leave()
		}
	}
}
