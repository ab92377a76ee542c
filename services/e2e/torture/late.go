package torture

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// lateUser is a user whose commands are given twice, through different gateways: the second time when it would be allowed.
const lateUser = "latecomer"

const (
	latePause   = 300 * time.Millisecond
	lateTimeout = 4 * time.Second
)

// latecomer is I13 under load. It speaks the protocol by hand, because a client of ours would not do this:
//
//	command, attempt 0   refused: no member
//	the owner adds the user
//	command, attempt 0   a late copy: refused as before
//	command, attempt 1   the client has received the refusal and asks anew: committed
//	the owner removes the user
type latecomer struct {
	*world
	owner *device
	id    string
	order int
}

// run goes on until ctx ends; what has no answer by then is left.
func (l *latecomer) run(ctx context.Context) {
	for launch.Sleep(ctx, latePause) == nil {
		if err := l.round(ctx); err != nil && ctx.Err() == nil {
			l.record.Violated(violation("latecomer", "%v", err))
			return
		}
	}
}

func (l *latecomer) round(ctx context.Context) error {
	l.order++
	key := Key{l.id, lateUser, uuid.Must(uuid.NewV7()).String()}
	body := message(fmt.Sprintf("may I? %d", l.order))
	l.record.Attempted(Attempt{Key: key, Body: encoded(body), Device: "late", Order: l.order})
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return l.give(ctx, key, body, 0) },
		func(ctx context.Context) error { return l.have(ctx, add(lateUser)) },
		func(ctx context.Context) error { return l.give(ctx, key, body, 0) },
		func(ctx context.Context) error { return l.give(ctx, key, body, 1) },
		func(ctx context.Context) error { return l.have(ctx, remove(lateUser)) },
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// have has the owner do something, and waits until it is done.
func (l *latecomer) have(ctx context.Context, body *conversationv1.Body) error {
	s, err := l.owner.send(l.id, body)
	if err != nil {
		return err
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.answer.Seq == 0 {
		return fmt.Errorf("%s was refused: %s", s.key, s.answer.Code)
	}
	return nil
}

// give gives a command until there is an answer, each time on a connection of its own.
func (l *latecomer) give(ctx context.Context, key Key, body *conversationv1.Body, attempt uint32) error {
	l.record.Asked(key, attempt)
	asked := time.Now()
	for {
		outcome, err := l.ask(ctx, key, body, attempt)
		if err == nil && outcome.GetError().GetCode() != conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE {
			l.record.Answered(Answer{
				Key: key, Asked: asked, At: time.Now(), Attempt: attempt, Seq: outcome.GetSeq(), Repeated: outcome.GetRepeated(), Code: outcome.GetError().GetCode(),
			})
			return nil
		}
		if err := launch.Sleep(ctx, latePause); err != nil {
			return err
		}
	}
}

// ask makes one connection and gives a command on it. An answer of the gateway itself says nothing about the command.
func (l *latecomer) ask(ctx context.Context, key Key, body *conversationv1.Body, attempt uint32) (*conversationv1.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, lateTimeout)
	defer cancel()
	token, err := l.token(lateUser)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	header.Set("Sec-WebSocket-Protocol", frame.Proto.Subprotocol())
	socket, err := l.dialer.dial(ctx, "", header)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	unwatch := context.AfterFunc(ctx, func() { socket.Close() })
	defer unwatch()
	const connecting, submitting = 1, 2
	for _, request := range []*clientv1.ClientFrame{
		{Id: connecting, Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: token, DeviceId: "late", NoReceipts: true, Client: "latecomer"}}},
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
