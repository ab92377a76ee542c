package torture

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/services/e2e/positions"
)

// world is shared by all devices.
type world struct {
	record  *Record
	witness *Witness
	dialer  *dialer
	token   func(user string) (string, error)
}

// device is one program of one user. It receives events and sends commands. Like an application, it is restarted from
// time to time with its saved positions. Commands without an answer are then submitted again with their old ids, in
// order.
type device struct {
	*world
	reader Reader
	codec  frame.Codec
	// ctx ends with the load.
	ctx context.Context //nolint:containedctx // used across restarts of the program, and in callbacks that have no context

	// opening is held while the program is being restarted.
	opening sync.Mutex
	client  *client.Client
	kept    positions.Kept

	mu        sync.Mutex
	views     map[string]*view
	orders    map[string]int
	messages  map[string]*recent
	pending   []*sending // in the order of submission
	committed []*sending

	waiting sync.WaitGroup // for goroutines that wait for answers
}

// sending is one command of a device.
type sending struct {
	key  Key
	body *conversationv1.Body
	// target is the conversation as passed to the outbox: empty for a create.
	target string
	asked  time.Time
	// answer is valid after done is closed. If there was no answer, its time is zero.
	answer Answer
	// ticket receives each new ticket of the command.
	ticket chan *client.Ticket
	done   chan struct{} // closed when the command was answered, or will never be answered
}

func newDevice(ctx context.Context, w *world, reader Reader, codec frame.Codec) *device {
	return &device{
		world: w, ctx: ctx, reader: reader, codec: codec,
		views: map[string]*view{}, orders: map[string]int{}, messages: map[string]*recent{},
	}
}

// open starts the program.
func (d *device) open() error {
	c, err := client.New(client.Config{
		URL: d.dialer.urls[0], DeviceID: d.reader.Device, Codec: d.codec, Software: "torture",
		Token:          func(context.Context) (string, error) { return d.token(d.reader.User) },
		ConnectTimeout: 3 * time.Second, RequestTimeout: 3 * time.Second, AckDelay: 50 * time.Millisecond,
		Backoff: client.Backoff{Min: 50 * time.Millisecond, Max: time.Second},
		Start:   clientv1.Start_START_FIRST, Cursors: &d.kept, Dial: d.dialer.dial,
		OnEvent: d.onEvent,
		OnHidden: func(h *clientv1.Hidden) {
			d.shown(Item{Kind: ItemHidden, Conversation: h.GetConversationId(), First: h.GetFirst(), Last: h.GetLast()})
		},
		OnAttached: func(c *clientv1.Conversation) {
			d.shown(Item{Kind: ItemAttached, Conversation: c.GetConversationId(), First: c.GetJoinedSeq()})
		},
		OnDetached: func(x *clientv1.Detached) {
			d.shown(Item{Kind: ItemDetached, Conversation: x.GetConversationId(), Last: x.GetLast()})
		},
		OnReceipt: func(*conversationv1.Receipt) {},
		OnForked: func(fork client.Fork) {
			d.record.Violated(violation("fork", "%s was told that %s went back from seq %d to %d", d.reader, fork.ConversationID, fork.From, fork.To))
		},
		OnBroken: func(err error) {
			d.record.Violated(violation("chain", "%s: %v", d.reader, err))
		},
	})
	if err != nil {
		return fmt.Errorf("make the client %s: %w", d.reader, err)
	}
	d.client = c
	return c.Start(d.ctx)
}

// reopen restarts the program.
func (d *device) reopen() error {
	d.opening.Lock()
	defer d.opening.Unlock()
	if err := d.client.Close(); err != nil {
		return fmt.Errorf("close the client %s: %w", d.reader, err)
	}
	if err := d.open(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.pending {
		ticket, err := d.client.EnqueueID(s.target, s.key.Command, s.body)
		if err != nil {
			return fmt.Errorf("give %s to the outbox again: %w", s.key, err)
		}
		s.renew(ticket)
	}
	return nil
}

// renew passes a command's new ticket on. An unread older ticket belongs to a program that has ended, and is discarded.
func (s *sending) renew(ticket *client.Ticket) {
	select {
	case <-s.ticket:
	default:
	}
	s.ticket <- ticket
}

// close ends the program permanently.
func (d *device) close() error {
	d.opening.Lock()
	defer d.opening.Unlock()
	return d.client.Close()
}

func (d *device) onEvent(ctx context.Context, event client.Event) {
	hash := hex.EncodeToString(event.GetHash())
	d.witness.Saw(ctx, Sighting{
		Conversation: event.GetConversationId(), Seq: event.GetSeq(), Hash: hash,
		Sender: event.GetSender(), Command: event.GetCommandId(), Who: d.reader.String(),
	})
	d.shown(Item{Kind: ItemEvent, Conversation: event.GetConversationId(), First: event.GetSeq(), Hash: hash, Content: content(event.GetBody())})
	if event.GetKind() == conversationv1.EventKind_EVENT_KIND_MESSAGE {
		d.mu.Lock()
		defer d.mu.Unlock()
		messages := d.messages[event.GetConversationId()]
		if messages == nil {
			messages = &recent{}
			d.messages[event.GetConversationId()] = messages
		}
		messages.add(event.GetSeq(), event.GetSender() == d.reader.User)
	}
}

// shown records an item that the application was shown, and checks whether it may follow the previous item.
func (d *device) shown(item Item) {
	d.record.Shown(d.reader, item)
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.views[item.Conversation]
	if v == nil {
		v = &view{}
		d.views[item.Conversation] = v
	}
	if err := v.take(item); err != nil {
		d.record.Violated(violation("I6", "%s in %s: %v", d.reader, item.Conversation, err))
	}
}

// positionOf returns the application's position in a conversation; false if it has none.
func (d *device) positionOf(conversationID string) (uint64, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.views[conversationID]
	if v == nil || !v.known {
		return 0, false
	}
	return v.last, true
}

// conversations returns the conversations of the application, by rising id.
func (d *device) conversations() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(d.views)) {
		if d.views[id].known {
			ids = append(ids, id)
		}
	}
	return ids
}

// send submits a command; target is empty for a create.
func (d *device) send(target string, body *conversationv1.Body) (*sending, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	s := &sending{
		key: Key{target, d.reader.User, id.String()}, body: body, target: target, asked: time.Now(),
		ticket: make(chan *client.Ticket, 1), done: make(chan struct{}),
	}
	if create := body.GetCreate(); create != nil {
		s.key.Conversation = string(conversation.CreateID(ids.User(d.reader.User), ids.Command(s.key.Command), create))
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	d.orders[s.key.Conversation]++
	d.record.Attempted(Attempt{Key: s.key, Body: encoded(body), Device: d.reader.Device, Order: d.orders[s.key.Conversation]})
	d.mu.Unlock()
	ticket, err := d.client.EnqueueID(s.target, s.key.Command, body)
	if err != nil {
		return nil, fmt.Errorf("give %s to the outbox: %w", s.key, err)
	}
	d.mu.Lock()
	d.pending = append(d.pending, s)
	d.mu.Unlock()
	s.renew(ticket)
	d.waiting.Go(func() { d.await(s) })
	return s, nil
}

// await waits for the answer of a command, across all restarts of the program.
func (d *device) await(s *sending) {
	defer close(s.done)
	for {
		var ticket *client.Ticket
		select {
		case ticket = <-s.ticket:
		case <-d.ctx.Done():
			return
		}
		outcome, err := ticket.Wait(d.ctx)
		if errors.Is(err, client.ErrClosed) && d.ctx.Err() == nil {
			continue // the device's client program was ended; the program that replaces it has a ticket for the command
		}
		d.answered(s, outcome, err, false, false)
		d.mu.Lock()
		d.pending = slices.DeleteFunc(d.pending, func(other *sending) bool { return other == s })
		if err == nil {
			d.committed = append(d.committed, s)
		}
		d.mu.Unlock()
		return
	}
}

// answered records an answer, unless the error means that there was none.
func (d *device) answered(s *sending, outcome *conversationv1.Outcome, err error, again, otherBody bool) {
	answer := Answer{Key: s.key, Asked: s.asked, At: time.Now(), Again: again, OtherBody: otherBody}
	var refusal *client.RefusedError
	switch {
	case err == nil:
		answer.Seq, answer.Repeated = outcome.GetSeq(), outcome.GetRepeated()
		d.witness.Saw(d.ctx, Sighting{
			Conversation: s.key.Conversation, Seq: answer.Seq, Sender: s.key.Sender, Command: s.key.Command, Who: "the outcome for " + d.reader.String(),
		})
		if outcome.GetConversationId() != s.key.Conversation || outcome.GetCommandId() != s.key.Command || answer.Seq == 0 {
			d.record.Violated(violation("I1", "%s got the outcome of another: %v", s.key, outcome))
		}
	case errors.As(err, &refusal):
		answer.Code = refusal.Code
	default:
		return // the load ended before the answer arrived
	}
	d.record.Answered(answer)
	s.answer = answer
}

// repeat submits a committed command again, with the same or another body.
func (d *device) repeat(s *sending, otherBody bool) {
	again := &sending{key: s.key, asked: time.Now()}
	body := s.body
	if otherBody = otherBody && s.target != ""; otherBody {
		body = message("not what was sent first")
		// If two bodies with one id are in flight, either may be refused. Therefore this command is never repeated again.
		d.mu.Lock()
		d.committed = slices.DeleteFunc(slices.Clone(d.committed), func(other *sending) bool { return other == s })
		d.mu.Unlock()
	}
	d.opening.Lock()
	ticket, err := d.client.EnqueueID(s.target, s.key.Command, body)
	d.opening.Unlock()
	if err != nil {
		return // the same command is in the outbox at the moment
	}
	d.waiting.Go(func() {
		outcome, err := ticket.Wait(d.ctx)
		if errors.Is(err, client.ErrClosed) {
			return // the program was ended; in any case, no new command was committed
		}
		d.answered(again, outcome, err, true, otherBody)
	})
}

// maxPending is the number of commands of a device that may wait for answers; above it the device sends no more.
const maxPending = 12

// load sends random commands until ctx ends.
func (d *device) load(ctx context.Context, random *rand.Rand) {
	for n := 0; ; n++ {
		pause := time.Duration(random.ExpFloat64() * float64(250*time.Millisecond))
		select {
		case <-time.After(min(pause, 2*time.Second)):
		case <-ctx.Done():
			return
		}
		ids := d.conversations()
		if len(ids) == 0 {
			continue
		}
		id := ids[random.IntN(len(ids))]
		d.mu.Lock()
		busy, done := len(d.pending) >= maxPending, d.committed
		d.mu.Unlock()
		var err error
		switch roll := random.IntN(100); {
		case roll < 8 && len(done) > 0:
			// Mostly old commands: the broker no longer remembers their ids, so only the store can recognise them.
			d.repeat(done[random.IntN(len(done))], roll < 2)
		case roll < 11:
			if last, known := d.positionOf(id); known {
				d.client.MarkRead(id, last)
			}
		case roll < 12:
			err = d.reopen()
		case !busy:
			_, err = d.send(id, d.compose(random, id, fmt.Sprintf("%s/%d %s", d.reader, n, strings.Repeat("x", random.IntN(200)))))
		}
		if err != nil {
			d.record.Violated(violation("client", "%s: %v", d.reader, err))
			return
		}
	}
}

func message(text string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}}
}
