package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// testInvariants lets two workers that both believe they own a partition send random batches. The batches contain new and
// repeated commands, and states and watermarks that may be stale. Whatever the store answers, at the end these hold: I1
// (each acknowledged event is stored once, at the acknowledged seq), I2 (no hole) and I5 (no key twice).
func testInvariants(t *testing.T, subject Subject) {
	t.Helper()
	db := subject.New(t)
	invariants(t, db, db)
}

// invariants gives each of the two workers a store of its own on the same database.
func invariants(t *testing.T, stores ...store.Store) {
	t.Helper()
	run := uint32(0)
	rapid.Check(t, func(rt *rapid.T) {
		// Each run has its own partition and new conversations in the same database, because making a database takes
		// long.
		run++
		model := &model{t: t, acked: map[string]uint64{}}
		model.workers[0] = NewWorker(stores[0], ids.Partition(run%Partitions), &Clock{n: int64(run) * 1_000_000})
		model.takeover(0)
		for range 2 {
			create := model.workers[0].CreateGroup("alice", "g", "bob")
			model.ids = append(model.ids, create.GetConversationId())
			for _, event := range model.workers[0].Commit(t, create) {
				model.ack(event)
			}
		}
		model.workers[1] = model.workers[0].Fork()
		model.workers[1].Store = stores[1]
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			model.step(rt)
		}
		model.check()
	})
}

type model struct {
	t       *testing.T
	workers [2]*Worker
	ids     []string
	sent    []*brokerv1.Command
	acked   map[string]uint64 // by conversation, sender and command
}

func key(conversation, sender, command string) string {
	return conversation + "/" + sender + "/" + command
}

func (m *model) ack(event *conversationv1.Event) {
	k := key(event.GetConversationId(), event.GetSender(), event.GetCommandId())
	if seq, before := m.acked[k]; before {
		require.Equal(m.t, seq, event.GetSeq(), "a repeated command has the same seq")
	}
	m.acked[k] = event.GetSeq()
}

func (m *model) step(rt *rapid.T) {
	n := rapid.IntRange(0, 1).Draw(rt, "worker")
	worker := m.workers[n]
	var commands []*brokerv1.Command
	chosen := map[string]bool{}
	for range rapid.IntRange(0, 70).Draw(rt, "size") {
		command := m.command(rt, worker)
		if k := key(command.GetConversationId(), command.GetSender(), command.GetCommandId()); !chosen[k] {
			chosen[k] = true
			commands = append(commands, command)
		}
	}
	for {
		attempt := worker.Fork()
		batch := attempt.Batch(attempt.Apply(m.t, commands...)...)
		duplicates, err := attempt.Append(m.t.Context(), batch)
		switch {
		case err == nil && len(duplicates) == 0:
			m.workers[n] = attempt
			for _, event := range batch.GetEvents() {
				m.ack(event)
			}
			return
		case err == nil:
			commands = m.drop(commands, duplicates)
			continue
		default:
			if _, moved := errors.AsType[*store.WatermarkError](err); !moved {
				require.ErrorIs(m.t, err, store.ErrSeqTaken)
			}
			m.takeover(n)
			return
		}
	}
}

// command returns a new command, or one that was sent before.
func (m *model) command(rt *rapid.T, worker *Worker) *brokerv1.Command {
	if len(m.sent) > 0 && rapid.IntRange(0, 9).Draw(rt, "again") == 0 {
		return rapid.SampledFrom(m.sent).Draw(rt, "which")
	}
	id := rapid.SampledFrom(m.ids).Draw(rt, "conversation")
	sender := rapid.SampledFrom([]string{"alice", "bob"}).Draw(rt, "sender")
	command := worker.Command(id, sender, Message("hello"))
	m.sent = append(m.sent, command)
	return command
}

func (m *model) drop(commands []*brokerv1.Command, duplicates []*historyv1.Duplicate) []*brokerv1.Command {
	gone := map[uint32]bool{}
	for _, duplicate := range duplicates {
		gone[duplicate.GetIndex()] = true
		m.ack(duplicate.GetFirst())
	}
	var kept []*brokerv1.Command
	for i, command := range commands {
		if !gone[uint32(i)] {
			kept = append(kept, command)
		}
	}
	return kept
}

// takeover sets a worker's state to the stored one.
func (m *model) takeover(n int) {
	ctx := context.WithoutCancel(m.t.Context())
	watermark, err := m.workers[n].Store.Watermark(ctx, m.workers[n].Partition)
	require.NoError(m.t, err)
	states, err := m.workers[n].Store.Conversations(ctx, m.ids)
	require.NoError(m.t, err)
	worker := m.workers[n].Fork()
	worker.Watermark = watermark
	for _, stored := range states {
		state := *worker.States[stored.GetConversationId()]
		state.Head, state.HeadHash = ids.Seq(stored.GetHead()), stored.GetHeadHash()
		worker.States[stored.GetConversationId()] = &state
	}
	m.workers[n] = worker
}

func (m *model) check() {
	for _, worker := range m.workers {
		stored := map[string]uint64{}
		for _, id := range m.ids {
			for _, event := range VerifyLog(m.t, worker.Store, id) {
				stored[key(id, event.GetSender(), event.GetCommandId())] = event.GetSeq()
			}
		}
		require.Equal(m.t, m.acked, stored)
	}
}
