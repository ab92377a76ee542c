// Package session commits batches to a store in memory in the same way as a session of a partition, without a stream and
// without failures. Tests of single packages use it to reach a state. It imports those packages, so their tests that use
// it are in external test packages.
package session

import (
	"context"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/cursor"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/partition/commit"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// Session performs the steps of a partition's session with a store: load, plan, look up, append, learn of duplicates,
// repeat.
type Session struct {
	Store    *deliverytest.History
	Planner  plan.Planner
	Cache    *cache.Cache
	Refusals *dedupe.Refusals
	limit    int
	Mark     *historyv1.Watermark
	Replans  int
}

// New makes a session with an empty store. At most limit refusals are kept in memory.
func New(limit int) *Session {
	s := &Session{
		Store: deliverytest.NewHistory(1), Planner: plan.Planner{Partition: 0, Partitions: 1, Apply: conversation.Apply}, limit: limit, Mark: &historyv1.Watermark{},
	}
	s.Restart()
	return s
}

// Restart discards all state in memory, like a new owner, and loads the refusals from the store.
func (s *Session) Restart() {
	s.Cache, s.Refusals = cache.New(1000), dedupe.NewRefusals(s.limit)
	remembered, _ := s.Store.ListRefusals(context.Background(), &historyv1.ListRefusalsRequest{Limit: 1000})
	s.Refusals.Load(remembered.GetRefusals(), s.Mark.GetTimeNs()/1e6)
}

// World returns the state that the planner reads.
func (s *Session) World() plan.World {
	return plan.World{State: s.Cache.State, Facts: s.Cache.Facts, Refusals: s.Refusals}
}

// Load loads the data that a batch needs.
func (s *Session) Load(t rapid.TB, batch []source.Message) {
	wanted := map[ids.Conversation]struct{}{}
	for i := range batch {
		if key := source.KeyOf(batch[i].Command); key.Committable() {
			wanted[key.Conversation] = struct{}{}
		}
	}
	ids := s.Cache.Missing(nil, wanted)
	found, err := s.Store.GetConversations(context.Background(), &historyv1.GetConversationsRequest{ConversationIds: ids})
	require.NoError(t, err)
	s.Cache.AddLoaded(ids, found.GetConversations(), 0)
	needs := s.Cache.UnknownNeeds(batch)
	if commit.BugNeedsNotLoaded {
		return
	}
	request := &historyv1.GetFactsRequest{}
	for _, n := range needs {
		request.Needs = append(request.Needs, &historyv1.Need{ConversationId: string(n.Conversation), Seq: uint64(n.Seq), UserId: string(n.User)})
	}
	facts, err := s.Store.GetFacts(context.Background(), request)
	require.NoError(t, err)
	require.Len(t, facts.GetFacts(), len(needs))
	s.Cache.AddFacts(needs, facts.GetFacts())
}

// Do commits messages and returns their outcomes; nil for a message that is not a command.
func (s *Session) Do(t rapid.TB, batch []source.Message) []*conversationv1.Outcome {
	var outcomes []*conversationv1.Outcome
	for len(batch) > 0 {
		n := plan.Cut(batch)
		outcomes = append(outcomes, s.commit(t, batch[:n])...)
		batch = batch[n:]
	}
	return outcomes
}

func (s *Session) commit(t rapid.TB, batch []source.Message) []*conversationv1.Outcome {
	s.Load(t, batch)
	known := dedupe.NewFacts()
	for {
		p := s.Planner.Make(batch, known, s.World())
		if keys := p.Unconfirmed(batch, known); len(keys) > 0 {
			request := &historyv1.FindCommandsRequest{}
			for _, k := range keys {
				request.Commands = append(request.Commands, k.Proto())
			}
			found, err := s.Store.FindCommands(context.Background(), request)
			require.NoError(t, err)
			for _, event := range found.GetEvents() {
				known.Firsts[source.KeyOfEvent(event)] = event
			}
			if len(found.GetEvents()) > 0 {
				s.Replans++
				continue
			}
		}
		last := batch[len(batch)-1]
		next := &historyv1.Watermark{Stream: "1", Sequence: uint64(last.Sequence), TimeNs: last.TimeNs}
		answer, err := s.Store.Append(context.Background(), &historyv1.AppendRequest{
			Expected: s.Mark, Next: next, BeginEpoch: s.Mark.GetStream() == "", Events: p.Events, Sequences: p.Sequences, Effects: p.Effects,
			DeadLetters: p.Letters, Refusals: p.Refusals,
		})
		require.NoError(t, err)
		if len(answer.GetDuplicates()) > 0 {
			for _, d := range answer.GetDuplicates() {
				known.Firsts[source.KeyOfEvent(p.Events[d.GetIndex()])] = d.GetFirst()
			}
			s.Replans++
			continue
		}
		next.Epoch = answer.GetEpoch()
		s.Mark = next
		s.Cache.ApplyCommitted(commit.ChangeOf(p), 0)
		s.Refusals.Add(p.Refusals, last.TimeMs())
		outcomes := make([]*conversationv1.Outcome, len(batch))
		for i := range batch {
			if batch[i].Command != nil {
				outcomes[i] = p.Results[i].Outcome(batch[i].Command)
			}
		}
		return outcomes
	}
}

// Cursors returns the cursors of the members of a conversation.
func (s *Session) Cursors(id ids.Conversation) map[ids.User]cursor.Position {
	all := map[ids.User]cursor.Position{}
	for _, c := range s.Cache.Cursors(id) {
		all[ids.User(c.GetUserId())] = cursor.PositionOf(c)
	}
	return all
}
