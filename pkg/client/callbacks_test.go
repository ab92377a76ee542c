package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// program records its callbacks. It also implements Cursors.
type program struct {
	cfg     Config
	told    []string
	saveErr error
}

func (p *program) sayf(format string, args ...any) {
	p.told = append(p.told, fmt.Sprintf(format, args...))
}

func (p *program) Load(context.Context) (map[string]Position, error) { return nil, nil }

func (p *program) Save(_ context.Context, id string, position Position) error {
	p.sayf("save %s %d %s", id, position.Seq, position.Hash)
	return p.saveErr
}

func (p *program) Forget(_ context.Context, id string) error {
	p.sayf("forget %s", id)
	return p.saveErr
}

// newProgram makes a program that sets every callback.
func newProgram() *program {
	p := &program{}
	p.cfg = Config{
		MaxEvents: 4, Cursors: p, Log: slog.New(slog.DiscardHandler),
		OnEvent:    func(_ context.Context, event Event) { p.sayf("event %d", event.GetSeq()) },
		OnHidden:   func(hidden *clientv1.Hidden) { p.sayf("hidden %d-%d", hidden.GetFirst(), hidden.GetLast()) },
		OnReceipt:  func(receipt *conversationv1.Receipt) { p.sayf("receipt %d", receipt.GetVersion()) },
		OnState:    func(state State) { p.sayf("state %s", state) },
		OnAttached: func(conversation *clientv1.Conversation) { p.sayf("attached %s", conversation.GetConversationId()) },
		OnDetached: func(detached *clientv1.Detached) {
			p.sayf("detached %s %d", detached.GetConversationId(), detached.GetLast())
		},
		OnAccepted: func(ticket *Ticket) { p.sayf("accepted %s", ticket.CommandID) },
		OnForked:   func(fork Fork) { p.sayf("forked %d to %d", fork.From, fork.To) },
		OnBroken:   func(err error) { p.sayf("broken: %v", err) },
	}
	return p
}

func (p *program) callbacks() *callbacks {
	return newCallbacks(&p.cfg, nil, func(conv *inbox.Conversation, branch int, seq uint64) {
		p.sayf("handed %s/%d %d", conv.ID(), branch, seq)
	})
}

// run delivers all queued notices.
func run(t *testing.T, cb *callbacks) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cb.deliver(ctx)
	}()
	synctest.Wait()
	cancel()
	<-ended
}

func eventOf(seq uint64) stream.Arrival {
	return stream.Arrival{Event: &clientv1.Event{ConversationId: "c", Seq: seq, Hash: []byte("hash")}}
}

func conversationC() *inbox.Conversation { return &inbox.Conversation{Stream: stream.New("c", 0)} }

func receiptNumber(version int64) *conversationv1.Receipt {
	return &conversationv1.Receipt{ConversationId: "c", Version: version}
}

func TestCallbacksAreCalledInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProgram()
		cb, conv := p.callbacks(), conversationC()
		cb.state(Connected)
		cb.Attached(&clientv1.Conversation{ConversationId: "c"})
		cb.Begins("c", 6)
		cb.Event(conv, 0, eventOf(7), chain.Verified)
		cb.Hidden(conv, 0, &clientv1.Hidden{ConversationId: "c", First: 8, Last: 9})
		cb.accepted(&Ticket{CommandID: "x"})
		cb.Receipt(&conversationv1.Receipt{ConversationId: "d", Version: 1})
		cb.fork(conv, 1, Fork{ConversationID: "c", From: 9, To: 5}, []byte("common"))
		cb.Event(conv, 1, eventOf(6), chain.Verified)
		cb.Broken(errors.New("hole"))
		cb.Detached(&clientv1.Detached{ConversationId: "c", Last: 6})
		run(t, cb)
		require.Equal(t, []string{
			"state connected", "attached c", "save c 6 ",
			"event 7", "save c 7 hash", "handed c/0 7",
			"hidden 8-9", "save c 9 ", "handed c/0 9",
			"accepted x", "receipt 1",
			"forked 9 to 5", "save c 5 common", "handed c/1 5",
			"event 6", "save c 6 hash", "handed c/1 6",
			"broken: hole", "forget c", "detached c 6",
		}, p.told)
		require.Zero(t, cb.events.Load())
		require.Zero(t, cb.others.Load())
	})
}

func TestAProgramWithoutCallbacksIsHandedEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProgram()
		p.cfg = Config{MaxEvents: 4}
		cb, conv := p.callbacks(), conversationC()
		cb.state(Connected)
		cb.Attached(&clientv1.Conversation{})
		cb.Begins("c", 6)
		cb.accepted(&Ticket{})
		cb.Receipt(receiptNumber(1))
		cb.Broken(errors.New("hole"))
		require.Zero(t, cb.others.Load(), "a notice without a callback is not queued")
		cb.Event(conv, 0, eventOf(7), chain.Verified)
		cb.Hidden(conv, 0, &clientv1.Hidden{First: 8, Last: 9})
		cb.fork(conv, 1, Fork{To: 5}, nil)
		cb.Detached(&clientv1.Detached{})
		run(t, cb)
		require.Equal(t, []string{"handed c/0 7", "handed c/0 9", "handed c/1 5"}, p.told)
	})
}

func TestTheQueueOfCallbacksIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProgram()
		cb, conv := p.callbacks(), conversationC()
		var room, page []bool
		for seq := range uint64(4) {
			room, page = append(room, cb.HasRoom()), append(page, cb.HasRoomForPage())
			cb.Event(conv, 0, eventOf(seq+1), chain.Verified)
		}
		require.Equal(t, []bool{true, true, true, true}, room)
		require.Equal(t, []bool{true, true, true, false}, page)
		require.False(t, cb.HasRoom())
		// An event counts as queued until its callback has returned.
		p.cfg.OnEvent = func(context.Context, Event) { p.sayf("room: %t", cb.HasRoom()) }
		run(t, cb)
		require.Equal(t, "room: false", p.told[0])
		require.True(t, cb.HasRoomForPage())

		for range maxNotices {
			cb.state(Waiting)
		}
		require.False(t, cb.overflows())
		cb.state(Waiting)
		require.True(t, cb.overflows())
		run(t, cb)
		require.False(t, cb.overflows())
	})
}

func TestWhatWaitsWhenTheClientEndsIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProgram()
		cb, conv := p.callbacks(), conversationC()
		ctx, cancel := context.WithCancel(t.Context())
		p.cfg.OnEvent = func(context.Context, Event) {
			p.sayf("event")
			cancel()
		}
		cb.Event(conv, 0, eventOf(1), chain.Verified)
		cb.Event(conv, 0, eventOf(2), chain.Verified)
		cb.deliver(ctx)
		require.Equal(t, []string{"event", "save c 1 hash", "handed c/0 1"}, p.told, "what was handed over is saved all the same")
	})
}

func TestOnlyTheNewestReceiptIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProgram()
		cb, conv := p.callbacks(), conversationC()
		cb.Receipt(receiptNumber(1))
		cb.Receipt(receiptNumber(2))
		cb.Receipt(&conversationv1.Receipt{ConversationId: "d", Version: 9})
		run(t, cb)
		require.Equal(t, []string{"receipt 2", "receipt 9"}, p.told)

		// A receipt from before a fork is dropped. A receipt from after the fork is delivered after the fork.
		p.told = nil
		cb.Receipt(receiptNumber(3))
		cb.fork(conv, 1, Fork{ConversationID: "c", To: 5}, nil)
		cb.Receipt(receiptNumber(1))
		run(t, cb)
		require.Equal(t, []string{"forked 0 to 5", "save c 5 ", "handed c/1 5", "receipt 1"}, p.told)
		require.Empty(t, cb.receipts)
		require.Zero(t, cb.others.Load())
	})
}

func TestAPositionThatCouldNotBeSavedIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProgram()
		var log bytes.Buffer
		p.cfg.Log, p.saveErr = slog.New(slog.NewTextHandler(&log, nil)), errors.New("disk is full")
		cb := p.callbacks()
		cb.Event(conversationC(), 0, eventOf(1), chain.Verified)
		cb.Detached(&clientv1.Detached{ConversationId: "c"})
		run(t, cb)
		require.Equal(t, []string{"event 1", "save c 1 hash", "handed c/0 1", "forget c", "detached c 0"}, p.told)
		require.Contains(t, log.String(), "could not save a position")
		require.Contains(t, log.String(), "could not forget a position")
	})
}

func TestACallbackMayQueueMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProgram()
		cb := p.callbacks()
		p.cfg.OnState = func(state State) {
			p.sayf("state %s", state)
			if state == Connecting {
				cb.state(Connected)
			}
		}
		cb.state(Connecting)
		run(t, cb)
		require.Equal(t, []string{"state connecting", "state connected"}, p.told)
	})
}
