package torture

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// observer uses the protocol without the Go client and reconnects repeatedly with its positions. It checks the gateway's
// promise: on one connection, a conversation continues exactly after the position that the client named, without a hole;
// events may be repeated. It never reads history to fill a gap, so it hides no fault of the gateway.
type observer struct {
	*world
	reader Reader
	codec  frame.Codec
	random *rand.Rand
	// stays means that the observer ends a connection only when it must. gate blocks it before it reads; nil does not
	// block. ended is called at the end of each connection; may be nil.
	stays bool
	gate  func(context.Context)
	ended func(error)

	mu sync.Mutex
	// has contains the received seq of each conversation, over all connections.
	has map[string]uint64
	// connections is the number of connections so far.
	connections int
	// leave ends the present connection; nil if there is none. online is closed when it is authenticated.
	leave  context.CancelFunc
	online bool
}

func newObserver(w *world, reader Reader, codec frame.Codec, seed uint64) *observer {
	return &observer{world: w, reader: reader, codec: codec, random: rand.New(rand.NewPCG(seed, 3)), has: map[string]uint64{}}
}

// run connects repeatedly until ctx ends, for at most a few seconds each time. After settle is closed, it keeps its
// connection.
func (o *observer) run(ctx context.Context, settle <-chan struct{}) {
	for ctx.Err() == nil {
		stay, cancel := context.WithTimeout(ctx, 200*time.Millisecond+time.Duration(o.random.Int64N(int64(4*time.Second))))
		select {
		case <-settle:
			o.stays = true
		default:
		}
		if o.stays {
			cancel()
			stay, cancel = context.WithCancel(ctx)
		}
		o.mu.Lock()
		o.leave = cancel
		o.mu.Unlock()
		err := o.connection(stay)
		cancel()
		o.mu.Lock()
		o.leave, o.online = nil, false
		o.mu.Unlock()
		if o.ended != nil {
			o.ended(err)
		}
		if errors.Is(err, errBroken) {
			o.record.Violated(violation("gateway", "%s: %v", o.reader, err))
		}
		select {
		case <-time.After(time.Duration(o.random.Int64N(int64(300 * time.Millisecond)))):
		case <-ctx.Done():
		}
	}
}

var errBroken = errors.New("the protocol was broken")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errBroken}, args...)...)
}

// anew makes the observer reconnect, and waits until the new connection is authenticated.
func (o *observer) anew(ctx context.Context) error {
	o.mu.Lock()
	if o.leave != nil {
		o.leave()
	}
	o.online = false
	before := o.connections
	o.mu.Unlock()
	for {
		o.mu.Lock()
		there := o.online && o.connections > before
		o.mu.Unlock()
		if there {
			return nil
		}
		if err := launch.Sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%s does not get a connection: %w", o.reader, err)
		}
	}
}

// positionOf returns the received seq of a conversation; false if the conversation is not known.
func (o *observer) positionOf(id string) (uint64, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seq, known := o.has[id]
	return seq, known
}

// connection runs one connection, until ctx ends or the gateway closes it.
func (o *observer) connection(ctx context.Context) error {
	token, err := o.token(o.reader.User)
	if err != nil {
		return err
	}
	header := http.Header{}
	header.Set("Sec-WebSocket-Protocol", o.codec.Subprotocol())
	socket, err := o.dialer.dial(ctx, "", header)
	if err != nil {
		return err
	}
	defer socket.Close()
	unwatch := context.AfterFunc(ctx, func() { socket.Close() })
	defer unwatch()

	l := &link{observer: o, resumed: map[string]uint64{}, at: map[string]uint64{}, gone: map[string]bool{}}
	connect := &clientv1.Connect{Token: token, DeviceId: o.reader.Device, Start: clientv1.Start_START_FIRST, NoReceipts: true, Client: "observer"}
	o.mu.Lock()
	o.connections++
	for _, id := range slices.Sorted(maps.Keys(o.has)) {
		seq := o.has[id]
		// Sometimes the observer reports an older position, like a device that was restored from an older copy.
		if o.random.IntN(4) == 0 {
			seq -= min(seq, uint64(o.random.IntN(5)))
		}
		l.resumed[id] = seq
		connect.Resume = append(connect.Resume, &clientv1.Position{ConversationId: id, Seq: seq})
	}
	o.mu.Unlock()
	write := func(f *clientv1.ClientFrame) error { return socket.WriteMessage(frame.AppendClient(nil, o.codec, f)) }
	if err := write(&clientv1.ClientFrame{Id: 1, Request: &clientv1.ClientFrame_Connect{Connect: connect}}); err != nil {
		return err
	}
	acks := o.stays || o.random.IntN(3) > 0 // an observer that never acknowledges gets all events again, and is disconnected in the end
	for {
		if o.gate != nil {
			o.gate(ctx)
		}
		data, err := socket.ReadMessage()
		if err != nil {
			return err
		}
		moved := map[string]uint64{}
		err = frame.DecodeServer(o.codec, data, func(f *clientv1.ServerFrame) error {
			if f.GetHeartbeat() != nil {
				return write(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}})
			}
			return l.take(ctx, f, moved)
		})
		if err != nil {
			return err
		}
		if acks && len(moved) > 0 {
			ack := &clientv1.Ack{}
			for id, seq := range moved {
				ack.Positions = append(ack.Positions, &clientv1.AckPosition{ConversationId: id, Delivered: seq})
			}
			if err := write(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: ack}}); err != nil {
				return err
			}
		}
	}
}

// link is the state of one connection, for checking the gateway's promise.
type link struct {
	*observer
	connected bool
	resumed   map[string]uint64
	// at contains the last seq of each conversation on this connection. gone contains the conversations whose membership
	// has ended on it.
	at   map[string]uint64
	gone map[string]bool
}

// take checks one frame and records the observer's position. It adds the positions to acknowledge to moved.
func (l *link) take(ctx context.Context, f *clientv1.ServerFrame, moved map[string]uint64) error {
	switch m := f.GetMessage().(type) {
	case *clientv1.ServerFrame_Connected:
		if l.connected {
			return broken("connected twice")
		}
		l.connected = true
		l.mu.Lock()
		l.online = true
		l.mu.Unlock()
		maps.Copy(l.at, l.resumed)
		for _, c := range m.Connected.GetConversations() {
			if _, named := l.resumed[c.GetConversationId()]; !named {
				l.at[c.GetConversationId()] = c.GetJoinedSeq() - 1
			}
		}
	case *clientv1.ServerFrame_Attached:
		id, base := m.Attached.GetConversation().GetConversationId(), m.Attached.GetConversation().GetJoinedSeq()-1
		switch at, known := l.at[id]; {
		case known && !l.gone[id]:
			return broken("%s was attached from seq %d on, with the membership before not detached: at %d", id, base+1, at)
		case known && base < at:
			return broken("%s was attached from seq %d on, although it was told up to %d before: a membership twice", id, base+1, at)
		}
		l.at[id], l.gone[id] = base, false
	case *clientv1.ServerFrame_Detached:
		id, last := m.Detached.GetConversationId(), m.Detached.GetLast()
		if last == 0 {
			return broken("%s is said to be unknown; it was received up to seq %d", id, l.resumed[id])
		}
		switch at, known := l.at[id]; {
		case !known:
			return broken("%s was detached with seq %d, without having been attached", id, last)
		case l.gone[id]:
			return broken("%s was detached twice, the second time with seq %d", id, last)
		case at != last:
			return broken("%s was detached with seq %d, having sent up to %d", id, last, at)
		}
		l.gone[id] = true
		l.mu.Lock()
		delete(l.has, id)
		l.mu.Unlock()
	case *clientv1.ServerFrame_Forked:
		return broken("%s is said to have gone back to seq %d; it was received up to %d, and nothing was restored", m.Forked.GetConversationId(), m.Forked.GetHead(), m.Forked.GetSeq())
	case *clientv1.ServerFrame_Hidden:
		l.record.Observed(l.reader, Item{
			Kind: ItemHidden, Conversation: m.Hidden.GetConversationId(), First: m.Hidden.GetFirst(), Last: m.Hidden.GetLast(),
		})
		if err := l.follow(m.Hidden.GetConversationId(), m.Hidden.GetFirst(), m.Hidden.GetLast()); err != nil {
			return err
		}
	case *clientv1.ServerFrame_Event:
		l.saw(ctx, m.Event)
		if err := l.follow(m.Event.GetConversationId(), m.Event.GetSeq(), m.Event.GetSeq()); err != nil {
			return err
		}
		moved[m.Event.GetConversationId()] = m.Event.GetSeq()
	}
	return nil
}

// follow checks that a stretch continues or repeats the events sent on this connection.
func (l *link) follow(id string, first, last uint64) error {
	at, known := l.at[id]
	switch {
	case !known:
		return broken("seq %d of %s, which was not named", first, id)
	case l.gone[id]:
		return broken("seq %d of %s, which was detached", first, id)
	case first > at+1:
		return broken("a hole in %s: seq %d follows %d (resumed at %d)", id, first, at, l.resumed[id])
	}
	l.at[id] = max(at, last)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.has[id] = max(l.has[id], last)
	return nil
}

func (l *link) saw(ctx context.Context, event *clientv1.Event) {
	hash := hex.EncodeToString(event.GetHash())
	l.witness.Saw(ctx, Sighting{
		Conversation: event.GetConversationId(), Seq: event.GetSeq(), Hash: hash,
		Sender: event.GetSender(), Command: event.GetCommandId(), Who: l.reader.String(),
	})
	l.record.Observed(l.reader, Item{Kind: ItemEvent, Conversation: event.GetConversationId(), First: event.GetSeq(), Hash: hash, Content: content(event.GetBody())})
}
