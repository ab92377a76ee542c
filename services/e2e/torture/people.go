package torture

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/frame"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// The numbers of devices and conversations in a run.
const (
	peopleCount   = 12
	groupCount    = 5
	directCount   = 3
	churningCount = 2
	observerCount = 3
)

// people opens the devices and makes the first conversations, before the first fault.
func (r *run) people(ctx context.Context) error {
	r.dialer = newDialer(r.suite.URLs, r.Seed, nil)
	shared := &world{record: r.record, witness: r.witness, dialer: r.dialer, token: r.suite.Token}
	codecs := []frame.Codec{frame.Proto, frame.JSON}
	for i := range peopleCount {
		user := fmt.Sprintf("user%02d", i)
		for n := range 1 + (i+1)%2 {
			if _, err := r.device(ctx, shared, Reader{user, fmt.Sprintf("device%d", n)}, codecs[(i+n)%2]); err != nil {
				return err
			}
		}
		if len(r.observers) < observerCount && i%3 == 0 {
			r.observers = append(r.observers, newObserver(shared, Reader{user, "observer"}, codecs[len(r.observers)%2], r.Seed+uint64(i)))
		}
	}
	for i := range groupCount + directCount {
		order := r.random.Perm(len(r.devices))
		owner, others := r.devices[order[0]], users(r.devices, order)
		body := direct(others[0])
		if i < groupCount {
			others = others[:2+r.random.IntN(3)]
			body = group(fmt.Sprintf("group %d", i), others...)
		}
		id, err := r.make(ctx, owner, body)
		if err != nil {
			return err
		}
		if i < churningCount {
			c := &churn{id: id, owner: owner}
			for _, user := range others {
				c.others = append(c.others, r.deviceOf(user))
			}
			r.groups = append(r.groups, c)
		}
	}
	owner := r.devices[0]
	id, err := r.make(ctx, owner, group("door", r.devices[len(r.devices)-1].reader.User))
	if err != nil {
		return err
	}
	r.latecomer = &latecomer{byHand: byHand{shared, "late"}, owner: owner, id: id}
	if r.mixes() {
		if err := r.welcome(ctx, shared); err != nil {
			return err
		}
	}
	if r.proxied() {
		if err := r.slowPeople(ctx, shared); err != nil {
			return err
		}
	}
	r.sayf("%d devices and %d observers are connected", len(r.devices), len(r.observers))
	return nil
}

// welcome makes a group with a user of the next version.
func (r *run) welcome(ctx context.Context, shared *world) error {
	order := r.random.Perm(len(r.devices))
	members := users(r.devices, order)[:peopleCount/2]
	members = append(members, newUser)
	id, err := r.make(ctx, r.devices[order[0]], group("of two versions", members...))
	r.newcomer = &newcomer{byHand: byHand{shared, "new"}, id: id}
	return err
}

// operators makes the actors that are not clients: the eraser, and the readers of the feed.
func (r *run) operators() (err error) {
	if r.eraser, err = newEraser(&world{record: r.record}, r.suite.Deliveries); err != nil {
		return err
	}
	r.feed, err = newFeed(r.record, r.suite.Histories)
	return err
}

// readFeeds reads the feeds of all partitions until ctx ends.
func (r *run) readFeeds(ctx context.Context) *sync.WaitGroup {
	readers := new(sync.WaitGroup)
	for partition := range uint32(partitions) {
		readers.Go(func() { r.feed.run(ctx, partition, rand.New(rand.NewPCG(r.Seed, 4000+uint64(partition)))) })
	}
	return readers
}

// slowPeople makes a slow reader and a writer.
func (r *run) slowPeople(ctx context.Context, shared *world) error {
	talker, err := r.device(ctx, shared, Reader{"talker", "device0"}, frame.Proto)
	if err != nil {
		return err
	}
	id, err := r.make(ctx, talker, direct("slow"))
	if err != nil {
		return err
	}
	apart := *shared
	apart.dialer = newDialer(r.suite.Direct, r.Seed+1, smallSockets)
	o := newObserver(&apart, Reader{"slow", "observer"}, frame.Proto, r.Seed)
	r.slow = newSlowReader(o, talker, id, r.suite.Gateways)
	r.observers = append(r.observers, o)
	return nil
}

// device opens another device.
func (r *run) device(ctx context.Context, w *world, reader Reader, codec frame.Codec) (*device, error) {
	d := newDevice(ctx, w, reader, codec)
	if err := d.open(); err != nil {
		return nil, err
	}
	r.devices = append(r.devices, d)
	return d, nil
}

// make makes a conversation, and waits until it is committed.
func (r *run) make(ctx context.Context, owner *device, body *conversationv1.Body) (id string, err error) {
	s, err := owner.send("", body)
	if err != nil {
		return "", err
	}
	select {
	case <-s.done:
		return s.key.Conversation, nil
	case <-time.After(live):
		return "", fmt.Errorf("%s was not answered within %v, with nothing wrong: see the logs in %s", s.key, live, r.Dir)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (r *run) deviceOf(user string) *device {
	for _, d := range r.devices {
		if d.reader.User == user {
			return d
		}
	}
	return nil
}

func countLines(path, text string) int {
	log, _ := os.ReadFile(path)
	return bytes.Count(log, []byte(text))
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
