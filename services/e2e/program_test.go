package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/e2e/positions"
)

// program is an application of one user: a Go client, the calls that it received, and the positions that it saved.
type program struct {
	*client.Client

	t      *testing.T
	events chan client.Event
	forks  chan client.Fork
	kept   *positions.Kept
}

// open starts a program; kept are the positions of an earlier one, nil for none.
func open(t *testing.T, url, user string, codec frame.Codec, kept *positions.Kept) *program {
	t.Helper()
	if kept == nil {
		kept = &positions.Kept{}
	}
	p := &program{t: t, events: make(chan client.Event, 1000), forks: make(chan client.Fork, 10), kept: kept}
	var err error
	p.Client, err = client.New(client.Config{
		URL: url, DeviceID: user + "-phone", Codec: codec, Start: clientv1.Start_START_FIRST, Cursors: kept,
		Backoff:  client.Backoff{Min: 20 * time.Millisecond, Max: 500 * time.Millisecond},
		Token:    func(context.Context) (string, error) { return token(t, user), nil },
		OnEvent:  func(_ context.Context, event client.Event) { p.events <- event },
		OnForked: func(fork client.Fork) { p.forks <- fork },
		OnBroken: func(err error) { t.Errorf("%s: %v", user, err) },
	})
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context()))
	t.Cleanup(func() { _ = p.Close() })
	ctx, cancel := p.patient()
	defer cancel()
	require.NoError(t, p.Ready(ctx))
	return p
}

// patient limits waits that are long only if there is a defect.
func (p *program) patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.t.Context(), patience)
}

// next returns the next event that the program receives.
func (p *program) next() client.Event {
	p.t.Helper()
	ctx, cancel := p.patient()
	defer cancel()
	select {
	case event := <-p.events:
		return event
	case <-ctx.Done():
		require.NoError(p.t, ctx.Err())
		return client.Event{}
	}
}

// upTo reads events up to a seq; each must follow the previous one.
func (p *program) upTo(last uint64) (events []client.Event) {
	p.t.Helper()
	for {
		event := p.next()
		if n := len(events); n > 0 {
			require.Equal(p.t, events[n-1].GetSeq()+1, event.GetSeq())
		}
		if events = append(events, event); event.GetSeq() == last {
			return events
		}
	}
}

// done submits a command, which must be committed.
func (p *program) done(id string, body *conversationv1.Body) (seq uint64) {
	p.t.Helper()
	ctx, cancel := p.patient()
	defer cancel()
	outcome, err := p.Submit(ctx, id, body)
	require.NoError(p.t, err)
	return outcome.GetSeq()
}

// refused submits a command, which must be refused with a code.
func (p *program) refused(code conversationv1.ErrorCode, id string, body *conversationv1.Body) {
	p.t.Helper()
	ctx, cancel := p.patient()
	defer cancel()
	_, err := p.Submit(ctx, id, body)
	var refusal *client.RefusedError
	require.ErrorAs(p.t, err, &refusal)
	require.Equal(p.t, code, refusal.Code, "%v", refusal)
}

func edit(target uint64, newText string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: target, Text: newText}}}
}

func remove(target uint64) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: target}}}
}

func react(target uint64, emoji string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: target, Emoji: emoji}}}
}

func answer(to uint64, said string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: said, ReplyTo: to}}}
}
