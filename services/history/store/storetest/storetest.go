// Package storetest is the conformance suite of the store: it tests the behaviour that every database must have, and
// benchmarks its cost. It builds its logs with the real rules of conversations, so that their chains verify.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// Partitions is the number of partitions that Subject.Open must be called with.
const Partitions = 16

// Subject is one implementation under test.
type Subject struct {
	// New creates an empty database and opens it. The database is closed and removed when the test ends.
	New func(tb testing.TB) *Database
}

// Database is one database of an implementation.
type Database struct {
	store.Store
	// Reopen opens the same database again, for the given number of partitions, without closing it first.
	Reopen func(ctx context.Context, partitions int) (store.Store, error)
	// SetBody overwrites the stored body of an event, bypassing the store.
	SetBody func(tb testing.TB, conversationID string, seq uint64, body []byte)
	// Delete removes an event, bypassing the store.
	Delete func(tb testing.TB, conversationID string, seq uint64)
	// Exec runs a statement that both databases understand, bypassing the store.
	Exec func(tb testing.TB, statement string)
	// Count runs a query for one number, bypassing the store.
	Count func(tb testing.TB, query string) int
	// EventBytes returns the size of the table of events and of each of its indexes, by name.
	EventBytes func(tb testing.TB) map[string]int
	// Hold keeps appends from being committed until release is called: those that have begun wait.
	Hold func(tb testing.TB) (release func())
	// Lanes is the number of transactions of appends at a time.
	Lanes int
	// Usage returns what the database has used up, for benchmarks.
	Usage func(tb testing.TB) Usage
	// OpenFormer creates a database with the former schema and tries to open it.
	OpenFormer func(tb testing.TB) error
}

// FormerEvents creates the table by which a database with the former schema is recognised: events without a format.
const FormerEvents = "CREATE TABLE events (conversation_id text, seq bigint, body bytea)"

// Run runs the whole suite.
func Run(t *testing.T, subject Subject) {
	t.Helper()
	for _, group := range []struct {
		name  string
		tests func(*testing.T, Subject)
	}{
		{"append", testAppend},
		{"together", testTogether},
		{"positions", testPositions},
		{"members", testMembers},
		{"effects", testEffects},
		{"messages", testMessages},
		{"erasure", testErasure},
		{"refusals", testRefusals},
		{"feed", testFeed},
		{"installation", testInstallation},
		{"recovery", testRecovery},
		{"rebuild", testRebuild},
		{"read", testRead},
		{"links", testLinks},
		{"lists", testLists},
		{"memberships", testMemberships},
		{"comparison", testComparison},
		{"cursors", testCursors},
		{"lease", testLease},
		{"dead letters", testDeadLetters},
		{"revocations", testRevocations},
		{"lifecycle", testLifecycle},
		{"invariants", testInvariants},
	} {
		t.Run(group.name, func(t *testing.T) { group.tests(t, subject) })
	}
}

// RunShared runs the tests of several services that open the same database. Each service must keep the same promises, and
// no two services may deadlock.
func RunShared(t *testing.T, subject Subject) {
	t.Helper()
	pair := func(t *testing.T) (one, other store.Store) {
		t.Helper()
		db := subject.New(t)
		other, err := db.Reopen(t.Context(), Partitions)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, other.Close()) })
		return db, other
	}
	t.Run("of appends that race on one watermark exactly one wins", func(t *testing.T) {
		one, other := pair(t)
		worker := NewWorker(one, 3, &Clock{})
		id := worker.Commit(t, worker.CreateGroup("alice", "our group", "bob"))[0].GetConversationId()
		race(t, worker, id, one, other)
	})
	t.Run("invariants", func(t *testing.T) {
		one, other := pair(t)
		invariants(t, one, other)
	})
	t.Run("cursors", func(t *testing.T) {
		one, other := pair(t)
		saveAtOnce(t, one, other)
	})
	t.Run("leases", func(t *testing.T) {
		one, other := pair(t)
		crowd(t, one, other)
	})
	t.Run("revocations", func(t *testing.T) {
		one, other := pair(t)
		storm(t, one, other)
	})
	t.Run("appends of another service wake readers of the feed", func(t *testing.T) {
		one, other := pair(t)
		wakeAcross(t, one, other)
	})
	t.Run("all of it at once", func(t *testing.T) {
		one, other := pair(t)
		var running sync.WaitGroup
		running.Go(func() { saveAtOnce(t, one, other) })
		running.Go(func() { crowd(t, other, one) })
		running.Go(func() { storm(t, one, other) })
		running.Go(func() {
			worker := NewWorker(other, 3, ClockAt(1<<40))
			id := worker.Commit(t, worker.CreateGroup("alice", "our group", "bob"))[0].GetConversationId()
			race(t, worker, id, other, one)
		})
		running.Wait()
	})
}

// Worker simulates a delivery worker: it applies commands to the states that it knows, and appends the events.
type Worker struct {
	Store     store.Store
	Partition ids.Partition
	Watermark *historyv1.Watermark
	States    map[string]*conversation.State
	clock     *Clock
	// effects are the effects of the applied events, by event; shared between forks.
	effects *sync.Map
}

// Clock numbers commands, so that ids and times rise. The workers of one test share a Clock.
type Clock struct{ n int64 }

const firstMs = 1_790_000_000_000

// ClockAt makes a clock that begins after a number below 2^48. Two clocks with distant numbers never make the same id.
func ClockAt(begin int64) *Clock { return &Clock{n: begin} }

// CommandID makes the next id, a UUIDv7 whose last 48 bits are the clock's number.
func (c *Clock) CommandID() string {
	c.n++
	ms := firstMs + c.n&0xffffff
	return fmt.Sprintf("%08x-%04x-7000-8000-%012x", ms>>16, ms&0xffff, c.n)
}

// NewWorker makes a worker of a partition to which nothing was appended.
func NewWorker(s store.Store, partition ids.Partition, clock *Clock) *Worker {
	return &Worker{
		Store: s, Partition: partition, Watermark: &historyv1.Watermark{},
		States: map[string]*conversation.State{}, clock: clock, effects: &sync.Map{},
	}
}

// Fork makes another worker with the same state: one is the old owner of the partition, the other its successor.
func (w *Worker) Fork() *Worker {
	fork := *w
	fork.States = make(map[string]*conversation.State, len(w.States))
	maps.Copy(fork.States, w.States)
	return &fork
}

// Command makes a command with the next id.
func (w *Worker) Command(id, sender string, body *conversationv1.Body) *brokerv1.Command {
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err) //nolint:forbidigo // the test itself made the body
	}
	return &brokerv1.Command{
		ConversationId: id, Sender: sender, CommandId: w.clock.CommandID(), Body: encoded, Salt: make([]byte, chain.SaltSize),
	}
}

// CreateGroup makes the command that creates a group.
func (w *Worker) CreateGroup(sender, name string, members ...string) *brokerv1.Command {
	command := w.Command("", sender, &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: name, Members: members,
	}}})
	command.ConversationId = string(conversation.GroupID(ids.User(sender), ids.Command(command.GetCommandId())))
	return command
}

// CreateDirect makes the command that creates the direct conversation of two users.
func (w *Worker) CreateDirect(sender, other string) *brokerv1.Command {
	return w.Command(string(conversation.DirectID(ids.User(sender), ids.User(other))), sender, &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{other},
	}}})
}

// Apply applies commands to the worker's states, and keeps the new states. It returns the events; a refusal fails the test.
func (w *Worker) Apply(tb testing.TB, commands ...*brokerv1.Command) []*conversationv1.Event {
	tb.Helper()
	events := make([]*conversationv1.Event, len(commands))
	known := &known{applied: make([]conversation.Result, 0, len(commands))}
	for i, command := range commands {
		event, refusal := w.apply(tb, command, known)
		require.Nil(tb, refusal, "the test's own command was refused: %v", refusal)
		events[i] = event
	}
	return events
}

// known contains the facts about messages that the commands of a batch refer to. It has facts only for conversations in
// which a command refers to a message.
type known struct {
	applied []conversation.Result
	facts   map[string]*conversation.Facts
}

func (k *known) of(id string) *conversation.Facts {
	if facts := k.facts[id]; facts != nil {
		return facts
	}
	facts := conversation.NewFacts(nil)
	for _, result := range k.applied {
		if result.Event.GetConversationId() == id {
			facts.Add(result.Event, result.Effects)
		}
	}
	if k.facts == nil {
		k.facts = map[string]*conversation.Facts{}
	}
	k.facts[id] = facts
	return facts
}

func (k *known) add(result conversation.Result) {
	k.applied = append(k.applied, result)
	if facts := k.facts[result.Event.GetConversationId()]; facts != nil {
		facts.Add(result.Event, result.Effects)
	}
}

// apply applies one command of a batch.
func (w *Worker) apply(tb testing.TB, command *brokerv1.Command, known *known) (*conversationv1.Event, *conversationv1.Error) {
	tb.Helper()
	id := command.GetConversationId()
	body, err := conversation.DecodeBody(command.GetBody())
	require.NoError(tb, err)
	var facts *conversation.Facts
	if needs := conversation.Needs(ids.User(command.GetSender()), body); len(needs) > 0 {
		facts = known.of(id)
		w.load(tb, id, facts, needs)
	}
	result, refusal := conversation.Apply(w.States[id], facts, command, body, firstMs+w.clock.n)
	if refusal != nil {
		return nil, refusal
	}
	known.add(result)
	w.States[id] = result.State
	if len(result.Effects) > 0 {
		w.effects.Store(result.Event, result.Effects)
	}
	return result.Event, nil
}

// load reads from the store the facts about messages that commands refer to and that are not in the same batch.
func (w *Worker) load(tb testing.TB, id string, facts *conversation.Facts, needs []conversation.Need) {
	tb.Helper()
	for _, need := range needs {
		if facts.Knows(need) {
			continue
		}
		found, err := w.Store.Facts(context.WithoutCancel(tb.Context()), []*historyv1.Need{{ConversationId: id, Seq: uint64(need.Seq), UserId: string(need.User)}})
		require.NoError(tb, err)
		for _, fact := range found {
			facts.Load(need, fact)
		}
	}
}

// Batch makes the append of events at the worker's watermark, with their effects.
func (w *Worker) Batch(events ...*conversationv1.Event) *historyv1.AppendRequest {
	begin := w.Watermark.GetSequence()
	next := &historyv1.Watermark{Stream: "1790000000000000000", Sequence: begin + uint64(max(1, len(events)))}
	next.TimeNs = firstMs*1_000_000 + int64(next.GetSequence())
	batch := &historyv1.AppendRequest{Partition: uint32(w.Partition), Expected: w.Watermark, Next: next, Events: events}
	for i, event := range events {
		batch.Sequences = append(batch.Sequences, begin+uint64(i)+1)
		effects, _ := w.effects.Load(event)
		of, _ := effects.([]*historyv1.Effect)
		for _, effect := range of {
			batch.Effects = append(batch.Effects, &historyv1.Effect{Event: uint32(i), Effect: effect.GetEffect()})
		}
	}
	return batch
}

// Append commits a batch, and moves the worker's watermark if it was committed.
func (w *Worker) Append(ctx context.Context, batch *historyv1.AppendRequest) ([]*historyv1.Duplicate, error) {
	response, err := w.Store.Append(ctx, batch)
	if err == nil && len(response.GetDuplicates()) == 0 {
		w.Watermark = proto.CloneOf(batch.GetNext())
		w.Watermark.Epoch = response.GetEpoch()
	}
	return response.GetDuplicates(), err
}

// Commit applies commands and appends them; any error fails the test.
func (w *Worker) Commit(tb testing.TB, commands ...*brokerv1.Command) []*conversationv1.Event {
	tb.Helper()
	events := w.Apply(tb, commands...)
	duplicates, err := w.Append(context.WithoutCancel(tb.Context()), w.Batch(events...))
	require.NoError(tb, err)
	require.Empty(tb, duplicates)
	return events
}

// Message returns the body of a message.
func Message(text string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}}
}

// Add returns the body that adds members.
func Add(members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: members}}}
}

// Remove returns the body that removes a member.
func Remove(member string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: member}}}
}

// Leave returns the body that makes the sender leave.
func Leave() *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}}
}

// Rename returns the body that changes the name.
func Rename(name string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: name}}}
}

// Reply returns the body of a message that replies to another message.
func Reply(text string, to uint64) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text, ReplyTo: to}}}
}

// Edit returns the body that changes the content of a message.
func Edit(target uint64, text string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: target, Text: text}}}
}

// Delete returns the body that deletes a message.
func Delete(target uint64) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: target}}}
}

// React returns the body that adds or removes a reaction.
func React(target uint64, emoji string, remove bool) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: target, Emoji: emoji, Remove: remove}}}
}

// Erase returns the body that erases content; its sender is conversation.ServerUser.
func Erase(erase *conversationv1.Erase) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: erase}}
}

// ReadAll reads a whole log page by page.
func ReadAll(tb testing.TB, s store.Store, id string) []*conversationv1.Event {
	tb.Helper()
	var events []*conversationv1.Event
	for {
		request := &historyv1.ReadRequest{ConversationId: id, After: uint64(len(events)), Limit: store.MaxPage}
		page, err := s.Read(context.WithoutCancel(tb.Context()), request)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		require.NoError(tb, err)
		events = append(events, page.GetEvents()...)
		if !page.GetMore() {
			return events
		}
	}
}

// VerifyLog checks I2 and I5 for one stored log: seqs 1 to n without a hole, an unbroken chain, no command twice.
func VerifyLog(tb testing.TB, s store.Store, id string) []*conversationv1.Event {
	tb.Helper()
	events := ReadAll(tb, s, id)
	verifier := chain.From(0, chain.Zero)
	type key struct{ sender, command string }
	seen := map[key]uint64{}
	for _, event := range events {
		_, err := verifier.Next(event)
		require.NoError(tb, err)
		k := key{event.GetSender(), event.GetCommandId()}
		require.Zero(tb, seen[k], "seq %d repeats the command of seq %d", event.GetSeq(), seen[k])
		seen[k] = event.GetSeq()
	}
	return events
}
