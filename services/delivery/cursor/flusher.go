package cursor

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// Store is the part of the store that a flusher needs.
type Store interface {
	SaveCursors(ctx context.Context, in *historyv1.SaveCursorsRequest, opts ...grpc.CallOption) (*historyv1.SaveCursorsResponse, error)
}

// Source is the place from which moved cursors are collected.
type Source interface {
	// Moved is raised when there are moved cursors to collect.
	Moved() wake.Signal
	// Collect adds the cursors that moved since the last call. A receipt never contains a cursor that is not stored with
	// it.
	Collect(into *Moves)
	// Saved reports that all collected cursors are stored.
	Saved()
}

// Flusher stores the cursors that moved in one partition, and then publishes the receipts. All fields are required.
type Flusher struct {
	Source Source
	Store  Store
	// Interval is the shortest interval between two calls. Timeout is the time limit of one call.
	Interval, Timeout time.Duration
	// Publish sends a receipt to the members.
	Publish func(*conversationv1.Receipt)
	// Flushed observes the number of cursors of each call. Failures counts failed calls.
	Flushed  prometheus.Observer
	Failures prometheus.Counter
}

// Run stores moved cursors until ctx ends. After that it stores the remaining cursors once, with a short timeout, so that a
// clean stop loses no cursor. Cursors that could not be stored are kept and stored in a later call.
func (f *Flusher) Run(ctx context.Context) {
	pending := NewMoves()
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	var next time.Time
	for {
		select {
		case <-ctx.Done():
		case <-f.Source.Moved():
			// A receipt is sent to every member. Therefore a busy conversation gets at most one receipt per interval; a
			// quiet conversation gets its receipt within a tenth of the interval.
			interval := f.Interval
			wait := max(interval/10, time.Until(next))
			// Jitter: receipts of all partitions at the same moment would delay messages.
			next = time.Now().Add(wait + interval/2 + rand.N(interval+1))
			timer.Reset(wait)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		ended, patience := ctx.Err() != nil, f.Timeout
		if ended {
			patience = lastFlush
		}
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		f.Source.Collect(pending)
		err := f.store(call, pending)
		cancel()
		switch {
		case ended:
			return
		case err != nil:
			f.Failures.Inc()
			f.Source.Moved().Raise()
		}
	}
}

// lastFlush is the time limit of the last call. It is short, because a quick handover is more important than cursors,
// which clients acknowledge again.
const lastFlush = 100 * time.Millisecond

func (f *Flusher) store(ctx context.Context, m *Moves) error {
	updates := make([]*historyv1.CursorUpdate, 0, len(m.Cursors))
	for key, at := range m.Cursors {
		updates = append(updates, &historyv1.CursorUpdate{ConversationId: string(key.Conversation), Cursor: at.Proto(key.User)})
	}
	for chunk := range slices.Chunk(updates, rpc.MaxItems) {
		if _, err := f.Store.SaveCursors(ctx, &historyv1.SaveCursorsRequest{Updates: chunk}); err != nil {
			return err
		}
		f.Flushed.Observe(float64(len(chunk)))
	}
	f.Source.Saved()
	for _, r := range m.Receipts {
		f.Publish(r)
	}
	clear(m.Cursors)
	clear(m.Receipts)
	return nil
}
