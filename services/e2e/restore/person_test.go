package restore_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/client"

	"github.com/runnelhq/runnel/services/e2e/positions"
)

// patience limits waits that are long only if there is a defect.
const patience = time.Minute

// person is a program of one user. What it keeps outlives its connection: the positions, and the events that it shows.
type person struct {
	*client.Client
	positions.Kept

	t       *testing.T
	machine *installation
	user    string
	// changed has a token when something below changed.
	changed chan struct{}

	mu       sync.Mutex
	views    map[string][]client.Event
	forks    []client.Fork
	accepted map[string]bool // the ids of commands that the broker holds
	fault    error
}

func (i *installation) person(user string) *person {
	i.t.Helper()
	p := &person{
		t: i.t, machine: i, user: user, changed: make(chan struct{}, 1),
		views: map[string][]client.Event{}, accepted: map[string]bool{},
	}
	p.open()
	return p
}

// open starts the program, again after close.
func (p *person) open() {
	p.t.Helper()
	var err error
	p.Client, err = client.New(client.Config{
		URL: p.machine.url(), DeviceID: p.user + "-phone", Start: clientv1.Start_START_FIRST, Cursors: &p.Kept,
		Backoff:  client.Backoff{Min: 20 * time.Millisecond, Max: 300 * time.Millisecond},
		Token:    func(context.Context) (string, error) { return p.machine.token(p.user) },
		OnEvent:  func(_ context.Context, event client.Event) { p.change(func() { p.show(event) }) },
		Accepted: true, OnAccepted: func(ticket *client.Ticket) { p.change(func() { p.accepted[ticket.CommandID] = true }) },
		OnForked: func(fork client.Fork) { p.change(func() { p.undo(fork) }) },
		OnBroken: func(err error) { p.change(func() { p.fault = err }) },
	})
	require.NoError(p.t, err)
	require.NoError(p.t, p.Start(p.t.Context()))
	p.t.Cleanup(func() { _ = p.Close() })
	ctx, cancel := p.patient()
	defer cancel()
	require.NoError(p.t, p.Ready(ctx))
}

func (p *person) patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.t.Context(), patience)
}

func (p *person) change(what func()) {
	p.mu.Lock()
	what()
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *person) show(event client.Event) {
	id := event.GetConversationId()
	if next := uint64(len(p.views[id])) + 1; event.GetSeq() != next && p.fault == nil {
		p.fault = fmt.Errorf("%s received seq %d instead of %d", p.user, event.GetSeq(), next)
	}
	p.views[id] = append(p.views[id], event)
}

// undo is what OnForked asks of a program.
func (p *person) undo(fork client.Fork) {
	p.forks = append(p.forks, fork)
	p.views[fork.ConversationID] = p.views[fork.ConversationID][:min(uint64(len(p.views[fork.ConversationID])), fork.To)]
}

// until waits for a condition, which is called under the lock.
func (p *person) until(what string, condition func() bool) {
	p.t.Helper()
	ctx, cancel := p.patient()
	defer cancel()
	for {
		p.mu.Lock()
		fault, holds := p.fault, condition()
		p.mu.Unlock()
		require.NoError(p.t, fault)
		if holds {
			return
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			require.NoError(p.t, ctx.Err(), "%s: %s", p.user, what)
		}
	}
}

// sees waits until the program shows as many events.
func (p *person) sees(id string, n int) {
	p.t.Helper()
	p.until(fmt.Sprint("does not see seq ", n), func() bool { return len(p.views[id]) >= n })
}

// fork waits until the program was told of a fork, and returns the first one.
func (p *person) fork() (first client.Fork) {
	p.t.Helper()
	p.until("was not told", func() bool {
		if len(p.forks) > 0 {
			first = p.forks[0]
		}
		return len(p.forks) > 0
	})
	return first
}

// told returns the forks of which the program was told.
func (p *person) told() []client.Fork {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.forks)
}

// say sends a message, which must be committed, and returns its command.
func (p *person) say(id, words string) *client.Ticket {
	p.t.Helper()
	ticket := p.begin(id, words)
	p.committed(ticket)
	return ticket
}

// begin puts a message into the outbox.
func (p *person) begin(id, words string) *client.Ticket {
	p.t.Helper()
	ticket, err := p.Enqueue(id, message(words))
	require.NoError(p.t, err)
	return ticket
}

// committed waits for the outcome of a command, which must be an event.
func (p *person) committed(ticket *client.Ticket) (seq uint64) {
	p.t.Helper()
	ctx, cancel := p.patient()
	defer cancel()
	outcome, err := ticket.Wait(ctx)
	require.NoError(p.t, err, p.user)
	return outcome.GetSeq()
}

// again sends a command that was committed before once more, as a program does that has lost the outcome.
func (p *person) again(id, commandID, words string) (seq uint64) {
	p.t.Helper()
	ctx, cancel := p.patient()
	defer cancel()
	outcome, err := p.SubmitID(ctx, id, commandID, message(words))
	require.NoError(p.t, err)
	return outcome.GetSeq()
}

// log reads the whole log from the store. It has no hole, and no command twice.
func (p *person) log(id string) (events []client.Event) {
	p.t.Helper()
	ctx, cancel := p.patient()
	defer cancel()
	for {
		page, err := p.ReadAfter(ctx, id, uint64(len(events)), 500)
		require.NoError(p.t, err)
		for _, event := range page.Events {
			require.EqualValues(p.t, len(events)+1, event.GetSeq())
			key := event.GetSender() + " " + event.GetCommandId()
			require.False(p.t, slices.ContainsFunc(events, func(e client.Event) bool { return e.GetSender()+" "+e.GetCommandId() == key }), key)
			events = append(events, event)
		}
		if len(page.Events) == 0 {
			return events
		}
	}
}

// converges waits until the program shows exactly the log.
func (p *person) converges(id string, log []client.Event) {
	p.t.Helper()
	p.until("does not converge", func() bool {
		return slices.EqualFunc(p.views[id], log, func(a, b client.Event) bool { return bytes.Equal(a.GetHash(), b.GetHash()) })
	})
}

func texts(events []client.Event) (all []string) {
	for _, event := range events[1:] { // the first one made the group
		all = append(all, event.GetBody().GetMessage().GetText())
	}
	return all
}

func message(words string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: words}}}
}
