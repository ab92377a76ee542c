package torture

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

const (
	handPause   = 300 * time.Millisecond
	handTimeout = 4 * time.Second
)

// byHand sends commands without the Go client, each on a connection of its own. It can send commands that the client
// would not send.
type byHand struct {
	*world
	// name is the name of the device.
	name string
}

// give sends a command until there is an answer, each time on a new connection.
func (h byHand) give(ctx context.Context, key Key, body *conversationv1.Body, attempt uint32) (*conversationv1.Outcome, error) {
	h.record.Asked(key, attempt)
	asked := time.Now()
	for {
		outcome, err := h.ask(ctx, key, body, attempt)
		if err == nil && outcome.GetError().GetCode() != conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE {
			h.record.Answered(Answer{
				Key: key, Asked: asked, At: time.Now(), Attempt: attempt, Seq: outcome.GetSeq(), Repeated: outcome.GetRepeated(), Code: outcome.GetError().GetCode(),
			})
			return outcome, nil
		}
		if err := launch.Sleep(ctx, handPause); err != nil {
			return nil, err
		}
	}
}

// ask makes one connection and sends a command on it. If the gateway itself answers with an error, the state of the
// command is unknown.
func (h byHand) ask(ctx context.Context, key Key, body *conversationv1.Body, attempt uint32) (*conversationv1.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, handTimeout)
	defer cancel()
	token, err := h.token(key.Sender)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	header.Set("Sec-WebSocket-Protocol", frame.Proto.Subprotocol())
	socket, err := h.dialer.dial(ctx, "", header)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	unwatch := context.AfterFunc(ctx, func() { socket.Close() })
	defer unwatch()
	const connecting, submitting = 1, 2
	for _, request := range []*clientv1.ClientFrame{
		{Id: connecting, Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: token, DeviceId: h.name, NoReceipts: true, Client: h.name}}},
		{Id: submitting, Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
			ConversationId: key.Conversation, CommandId: key.Command, Body: body, Attempt: attempt,
		}}},
	} {
		if err := socket.WriteMessage(frame.AppendClient(nil, frame.Proto, request)); err != nil {
			return nil, err
		}
	}
	var outcome *conversationv1.Outcome
	for outcome == nil {
		data, err := socket.ReadMessage()
		if err != nil {
			return nil, err
		}
		err = frame.DecodeServer(frame.Proto, data, func(f *clientv1.ServerFrame) error {
			switch {
			case f.GetError() != nil:
				return fmt.Errorf("the gateway refused: %v", f.GetError())
			case f.GetId() == submitting:
				outcome = f.GetOutcome()
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return outcome, nil
}
