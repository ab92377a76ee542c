package delivery

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/runnelhq/runnel/pkg/rpc"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
	"github.com/runnelhq/runnel/services/delivery/publish"
)

// maxSteps is the most steps of a receipt.
const maxSteps = 32

type cursorKey struct{ conversation, user string }

// moves are cursors on their way to the store and the receipts that tell of them. Newer ones replace older ones, so
// moves that could not be stored yet stay as small as the conversations in memory are.
type moves struct {
	cursors  map[cursorKey]cursor
	receipts map[string]*conversationv1.Receipt
}

// collect adds to m what moved since the last time. The receipts are taken at the same moment, so that they never tell
// of a cursor that is not stored with them.
func (b *book) collect(m *moves) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, p := range b.dirty {
		for user := range p.moved {
			m.cursors[cursorKey{id, user}] = p.cursors[user]
		}
		b.saving[id] = p
		m.receipts[id] = receipt(id, p)
		clear(p.moved)
		p.changed = false
	}
	clear(b.dirty)
}

// saved says that all that was collected is stored: the pages may be forgotten and read again.
func (b *book) saved() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.saving)
}

// receipt takes a conversation's receipt. Callers hold the book's mu.
//
// Its version follows from what it tells, so that it rises over takeovers without a clock: the sum of all cursors, plus
// head times (head + 1). Cursors only move forward, and a receipt tells of none that is not stored. When a member leaves, the
// sum falls by at most twice the head before; but then the head has risen, and the product by more than that. Equal versions
// tell the same. It fits for heads below 2^31.
func receipt(id string, p *page) *conversationv1.Receipt {
	delivered, read := make(map[uint64]uint32, 8), make(map[uint64]uint32, 8)
	var sum uint64
	for _, at := range p.cursors {
		delivered[at.delivered]++
		read[at.read]++
		sum += at.delivered + at.read
	}
	if p.state != nil {
		sum += p.state.Head * (p.state.Head + 1)
	}
	return &conversationv1.Receipt{
		ConversationId: id, Members: uint32(len(p.cursors)), Delivered: staircase(delivered), Read: staircase(read), Version: int64(sum),
	}
}

// staircase turns the number of members at each seq into steps, highest first, each counting those above it too.
// Nobody at seq 0 has anything, so 0 is no step.
func staircase(at map[uint64]uint32) []*conversationv1.Step {
	seqs := make([]uint64, 0, len(at))
	for seq := range at {
		if seq > 0 {
			seqs = append(seqs, seq)
		}
	}
	slices.SortFunc(seqs, func(a, b uint64) int {
		if a > b {
			return -1
		}
		return 1 // keys of a map: never equal
	})
	if len(seqs) > maxSteps {
		seqs = seqs[:maxSteps]
	}
	steps := make([]*conversationv1.Step, len(seqs))
	var members uint32
	for i, seq := range seqs {
		members += at[seq]
		steps[i] = &conversationv1.Step{Seq: seq, Members: members}
	}
	return steps
}

// flushCursors stores moved cursors and then tells the receipts, until ctx ends; then once more, briefly, so that a clean
// stop loses none. What could not be stored is kept and tried again with what moved since.
func (s *session) flushCursors(ctx context.Context) {
	pending := &moves{cursors: map[cursorKey]cursor{}, receipts: map[string]*conversationv1.Receipt{}}
	publish := publish.New(s.owner.nc, s.owner.worker, s.owner.log, s.owner.metrics)
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	var next time.Time
	for {
		select {
		case <-ctx.Done():
		case <-s.book.flush:
			// A receipt costs every member a write, so a lively conversation gets one a second; a quiet one gets it while
			// the sender still looks.
			interval := s.owner.cfg.FlushInterval
			wait := max(interval/10, time.Until(next))
			// Not all partitions in the same moment: their receipts would hold up the messages between them.
			next = time.Now().Add(wait + interval/2 + rand.N(interval+1))
			timer.Reset(wait)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		ended, patience := ctx.Err() != nil, s.owner.cfg.AppendTimeout
		if ended {
			patience = lastFlush
		}
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		s.book.collect(pending)
		err := s.storeCursors(call, pending, publish)
		cancel()
		switch {
		case ended:
			return
		case err != nil:
			s.owner.metrics.FlushFailures.Inc()
			s.book.flush.Raise()
		}
	}
}

// lastFlush is how long a stopping owner spends on cursors: they are worth less than a quick handover.
const lastFlush = 100 * time.Millisecond

func (s *session) storeCursors(ctx context.Context, m *moves, publish *publish.Publisher) error {
	updates := make([]*historyv1.CursorUpdate, 0, len(m.cursors))
	for key, at := range m.cursors {
		updates = append(updates, &historyv1.CursorUpdate{ConversationId: key.conversation, Cursor: &conversationv1.Cursor{
			UserId: key.user, DeliveredSeq: at.delivered, DeliveredTimeMs: at.deliveredTime, ReadSeq: at.read, ReadTimeMs: at.readTime,
		}})
	}
	for chunk := range slices.Chunk(updates, rpc.MaxItems) {
		if _, err := s.owner.history.SaveCursors(ctx, &historyv1.SaveCursorsRequest{Updates: chunk}); err != nil {
			return err
		}
		s.owner.metrics.Flushed.Observe(float64(len(chunk)))
	}
	s.book.saved()
	for _, r := range m.receipts {
		publish.Receipt(r)
	}
	clear(m.cursors)
	clear(m.receipts)
	return nil
}
