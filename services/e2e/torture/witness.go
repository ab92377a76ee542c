package torture

import (
	"context"
	"strconv"
	"sync"
	"time"
)

// Witness reads the database at the moment of an answer or a shown event: everything acknowledged or fanned out must be
// committed by then. If it is not found, a promise is broken, even if the commit follows a moment later.
//
//	saw ─▶ queue ─▶ reads one by one, each begun after the sighting ─▶ found: remembered, never read again
//	                                                                └▶ missing: a violation
type Witness struct {
	database *Database
	record   *Record
	queue    chan sighted

	mu    sync.Mutex
	found map[string]struct{}
	// looks is the number of reads. late is the number of reads that had to wait for the database.
	looks, late int
}

type sighted struct {
	Sighting
	at time.Time
}

// queueLength limits the waiting sightings. If the queue is full, the observer of a sighting waits.
const queueLength = 8192

// lateAfter is the delay after which a read counts as late: a commit after the sighting may have come first.
const lateAfter = 100 * time.Millisecond

// NewWitness makes a witness. The caller calls Run.
func NewWitness(database *Database, record *Record) *Witness {
	return &Witness{database: database, record: record, queue: make(chan sighted, queueLength), found: map[string]struct{}{}}
}

// Saw queues a sighting. It blocks while the queue is full. It must not be called after Run has returned.
func (w *Witness) Saw(ctx context.Context, s Sighting) {
	if w.knows(s) {
		return
	}
	select {
	case w.queue <- sighted{s, time.Now()}:
	case <-ctx.Done():
	}
}

func (s Sighting) id() string {
	return s.Conversation + " " + strconv.FormatUint(s.Seq, 10) + " " + s.Hash + " " + s.Command + " " + s.Sender
}

func (w *Witness) knows(s Sighting) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.found[s.id()]
	return known
}

// Run reads until the queue is closed by Finish, or ctx ends.
func (w *Witness) Run(ctx context.Context) {
	for {
		select {
		case s, open := <-w.queue:
			if !open {
				return
			}
			if !w.knows(s.Sighting) {
				w.look(ctx, s)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Finish ends Run after all queued sightings were checked.
func (w *Witness) Finish() { close(w.queue) }

// retryPause is how long to wait for a database that is down or paused.
const retryPause = 20 * time.Millisecond

func (w *Witness) look(ctx context.Context, s sighted) {
	for ctx.Err() == nil {
		begun := time.Now()
		problem, err := w.database.Committed(ctx, s.Sighting)
		if err != nil {
			timer := time.NewTimer(retryPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		if problem != "" {
			w.record.Violated(violation("witness", "%s saw seq %d of %s, which %s (looked %v after it came)",
				s.Who, s.Seq, s.Conversation, problem, begun.Sub(s.at).Round(time.Microsecond)))
		}
		w.mu.Lock()
		w.looks++
		if time.Since(s.at) > lateAfter {
			w.late++
		}
		if problem == "" {
			w.found[s.id()] = struct{}{}
		}
		w.mu.Unlock()
		return
	}
}

// Looks returns the number of reads, and how many of them were late because the database was down.
func (w *Witness) Looks() (looks, late int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looks, w.late
}
