package client_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/errcode"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// fault is a fault that affects the next frame of the gateway.
type fault int

const (
	none fault = iota
	drop
	repeat
	older
	forge
	cut
	closeSlow
	goAway
	temporary
	faults
)

// script describes one run: the faults in order, and the user's actions.
type script struct {
	faults   []fault
	commands int
	events   int
	maxRoom  int
	slow     bool
}

// faulty is a gateway with the faults of the script. After the last fault it behaves correctly.
type faulty struct {
	*gateway
	t      *testing.T
	h      *history
	script script
	turn   int
	heal   chan struct{}
	healed bool
	// link is the connection. sent is the newest seq pushed on it. beat is the head in the last heartbeat.
	link *link
	sent uint64
	beat uint64
	// results contains the outcomes by command id.
	results map[string]uint64
	failure error
}

func (f *faulty) next() fault {
	if f.healed || len(f.script.faults) == 0 {
		return none
	}
	f.turn++
	return f.script.faults[f.turn%len(f.script.faults)]
}

// run serves connections until the test ends, on one goroutine. Time advances only while all other goroutines wait.
func (f *faulty) run(stop <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	beat := time.NewTicker(2 * time.Second)
	defer beat.Stop()
	for {
		var incoming chan []byte
		var closed chan struct{}
		if f.link != nil {
			incoming, closed = f.link.toServer, f.link.closed
		}
		select {
		case <-stop:
			return
		case <-f.heal:
			f.healed, f.heal = true, nil
		case l := <-f.links:
			f.link = l
			f.sent = ^uint64(0)
		case message := <-incoming:
			f.link.toServer <- message
			for len(f.link.toServer)+len(f.link.pending) > 0 {
				frame, err := f.link.next()
				if err != nil {
					f.failure = err
					f.link.cut()
					break
				}
				f.answer(frame)
			}
		case <-closed:
			f.link = nil
		case <-tick.C:
			if !f.healed && len(f.h.events) < f.script.events {
				f.h.grow(1)
			}
			f.push()
		case <-beat.C:
			if f.link != nil && f.sent != ^uint64(0) {
				heartbeat := &clientv1.Heartbeat{}
				if f.h.head() != f.beat {
					heartbeat.Heads = []*clientv1.Position{{ConversationId: f.h.id, Seq: f.h.head()}}
				}
				f.beat = f.h.head()
				f.link.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: heartbeat}})
			}
		}
	}
}

// push sends the events that the client was not sent yet.
func (f *faulty) push() {
	for f.link != nil && f.sent < f.h.head() {
		f.sent++
		f.spoil(f.h.push(f.sent))
	}
}

func (f *faulty) spoil(what *clientv1.ServerFrame) {
	l := f.link
	switch f.next() {
	case drop:
	case repeat:
		l.send(what, what)
	case older:
		l.send(what, f.h.push(max(1, f.sent/2)))
	case forge:
		if what.GetEvent().GetBody().GetMessage() != nil {
			what = tampered(what.GetEvent())
		}
		l.send(proto.CloneOf(what))
	case cut:
		l.cut()
	case closeSlow:
		l.send(what)
		l.close(errcode.CloseSlow)
	case goAway:
		l.send(what, &clientv1.ServerFrame{Message: &clientv1.ServerFrame_GoAway{GoAway: &clientv1.GoAway{ReconnectDelayMs: 300}}})
	default:
		l.send(what)
	}
}

func (f *faulty) answer(frame *clientv1.ClientFrame) {
	l := f.link
	switch {
	case frame.GetConnect() != nil:
		info := f.h.info()
		f.sent, f.beat = 0, f.h.head()
		for _, position := range frame.GetConnect().GetResume() {
			f.sent = position.GetSeq()
		}
		l.send(&clientv1.ServerFrame{Id: frame.GetId(), Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{
			UserId: "alice", HeartbeatMs: 5000, Conversations: []*clientv1.Conversation{info},
		}}})
		f.push()
	case frame.GetRead() != nil:
		switch f.next() {
		case drop:
		case cut:
			l.cut()
		case temporary:
			l.send(refuse(frame.GetId(), conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE))
		default:
			l.send(f.h.page(frame))
		}
	case frame.GetSubmit() != nil:
		fault := f.next()
		if fault == temporary {
			l.send(refuse(frame.GetId(), conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED))
			return
		}
		if fault == cut {
			l.cut()
			return
		}
		command := frame.GetSubmit().GetCommandId()
		seq, repeated := f.results[command]
		if !repeated {
			event, refusal := f.h.apply("alice", command, frame.GetSubmit().GetBody())
			if refusal != nil {
				f.failure = fmt.Errorf("refused: %v", refusal)
				return
			}
			seq = event.GetSeq()
			f.results[command] = seq
		}
		switch fault {
		case drop:
		case closeSlow:
			l.close(errcode.CloseSlow)
		default:
			l.send(commit(frame, seq))
		}
		f.push()
	}
}

// TestAnyInterleavingIsSeenOnceAndInOrder tests the promise of the package. Whatever frames are lost, repeated, forged or
// cut off, in the end the application has received events 1..n in order, each once. Its commands are in the log once, in
// their order.
func TestAnyInterleavingIsSeenOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := script{
			faults:   rapid.SliceOfN(rapid.Map(rapid.IntRange(0, 2*int(faults)), func(n int) fault { return fault(n % int(2*faults) % int(faults)) }), 0, 40).Draw(rt, "faults"),
			commands: rapid.IntRange(0, 8).Draw(rt, "commands"),
			events:   rapid.IntRange(1, 60).Draw(rt, "events"),
			maxRoom:  rapid.SampledFrom([]int{3, 20, 1000}).Draw(rt, "room"),
			slow:     rapid.Bool().Draw(rt, "slow"),
		}
		var problem string
		synctest.Test(t, func(t *testing.T) { problem = play(t, s) })
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// play runs a script. It returns how the events that the application received differ from the expected ones; empty if
// they do not differ.
func play(t *testing.T, s script) (problem string) {
	t.Helper()
	f := &faulty{gateway: newGateway(), t: t, h: newHistory(1), script: s, results: map[string]uint64{}}
	stop, heal := make(chan struct{}), make(chan struct{})
	f.heal = heal
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(stop)
	}()
	c, v := start(t, f.gateway, fromFirst, func(cfg *client.Config) {
		cfg.MaxEvents = s.maxRoom
		cfg.Backoff.Max = time.Second
		if see := cfg.OnEvent; s.slow {
			cfg.OnEvent = func(ctx context.Context, event client.Event) {
				time.Sleep(70 * time.Millisecond)
				see(ctx, event)
			}
		}
	})
	var tickets []*client.Ticket
	for i := range s.commands {
		tickets = append(tickets, enqueue(t, c, f.h.id, fmt.Sprint("command ", i)))
		time.Sleep(60 * time.Millisecond)
	}
	time.Sleep(30 * time.Second)
	synctest.Wait()
	close(heal)
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	close(stop)
	<-ended

	if f.failure != nil {
		return f.failure.Error()
	}
	broken := len(v.broken) > 0
	var last uint64
	for _, ticket := range tickets {
		select {
		case <-ticket.Done():
		default:
			return "a command has no outcome"
		}
		outcome, err := ticket.Wait(t.Context())
		if err != nil || outcome.GetSeq() <= last {
			return fmt.Sprintf("commands out of order: %v after %d, %v", outcome, last, err)
		}
		last = outcome.GetSeq()
		if event := f.h.events[last-1]; event.GetCommandId() != ticket.CommandID {
			return "a command's seq is not that of its event"
		}
	}
	if got, want := v.seqs(f.h.id), upTo(1, f.h.head()); !slices.Equal(got, want) && !broken {
		return fmt.Sprintf("saw %v, not 1..%d; %+v", got, f.h.head(), c.Stats())
	}
	if broken {
		return fmt.Sprintf("a forged push stopped the conversation although history is sound: %v", v.broken)
	}
	require.NoError(t, c.Close())
	return ""
}
