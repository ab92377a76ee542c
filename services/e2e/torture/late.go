package torture

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// lateUser is a user whose commands are sent twice through different gateways. At the time of the second copy, they would
// be allowed.
const lateUser = "latecomer"

const latePause = 300 * time.Millisecond

// latecomer tests I13 under load. It uses the protocol without the Go client, which would not send these commands:
//
//	command, attempt 0   refused: not a member
//	the owner adds the user
//	command, attempt 0   a late copy: refused as before
//	command, attempt 1   the client has received the refusal and tries again: committed
//	the owner removes the user
type latecomer struct {
	byHand
	owner *device
	id    string
	order int
}

// run repeats the sequence until ctx ends. Commands without an answer are then given up.
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
	l.record.Attempted(Attempt{Key: key, Body: encoded(body), Device: l.name, Order: l.order})
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return l.try(ctx, key, body, 0) },
		func(ctx context.Context) error { return l.have(ctx, add(lateUser)) },
		func(ctx context.Context) error { return l.try(ctx, key, body, 0) },
		func(ctx context.Context) error { return l.try(ctx, key, body, 1) },
		func(ctx context.Context) error { return l.have(ctx, remove(lateUser)) },
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// have sends a command of the owner, and waits until it is committed.
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

func (l *latecomer) try(ctx context.Context, key Key, body *conversationv1.Body, attempt uint32) error {
	_, err := l.give(ctx, key, body, attempt)
	return err
}
