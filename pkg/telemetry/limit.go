package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// lineBurst is the number of lines of one kind that are written at once. Five are enough to see whether the lines
	// differ.
	lineBurst = 5
	// debugBurst is the burst of debug lines. It is large, because an operator who enables debug lines wants to see them.
	debugBurst = 200
	// firstPause is the time after which the lines above the burst are written as one line. It doubles, up to
	// longestPause, while more lines follow.
	firstPause   = 10 * time.Second
	longestPause = time.Minute
	// maxKinds limits the table of kinds. A program has fewer different messages, unless a message contains a variable
	// part. Lines of further kinds share one entry per level.
	maxKinds = 512
	// partitionKey is the attribute of lines about one partition. One cause often affects many partitions. Therefore
	// these lines have a burst of one, and the line that represents the others lists their partitions.
	partitionKey = "partition"
)

// Limiter is a slog.Handler that limits how many lines of one kind are written. A kind is a level and a message. Neither a
// client that repeats a mistake nor an outage with many consequences can fill the log:
//
//	first line ──▶ burst is written ──▶ further lines are held back ──pause──▶ the last one is written, with not_logged=<others>
//	                                        ▲                                        │ more lines: the pause doubles
//	                                        └────────────────────────────────────────┘ none in a pause: the burst is free again
//
// Every line is either written or counted in a not_logged. Close writes the lines that are held back.
type Limiter struct {
	next slog.Handler
	// partition is the value of the attribute partitionKey if it was set by WithAttrs.
	partition  slog.Value
	partitions bool
	table      *lineTable
}

// NewLimiter returns a limiter in front of the handler next. The caller closes it.
func NewLimiter(next slog.Handler) *Limiter {
	return &Limiter{next: next, table: &lineTable{kinds: map[lineKind]*lines{}}}
}

type lineKind struct {
	level   slog.Level
	message string
}

// lineTable is shared by a limiter and all handlers derived from it.
type lineTable struct {
	mu     sync.Mutex
	kinds  map[lineKind]*lines // at most maxKinds, plus one for each level
	closed bool
}

// lines is the state of one kind.
type lines struct {
	written int // number of lines written in the current burst
	pause   time.Duration
	timer   *time.Timer
	held    *heldLine // the last line that was held back; nil if there is none
	others  uint64    // number of lines that were held back before held
	where   partitions
}

// heldLine is a line together with the handler that has the line's attributes.
type heldLine struct {
	record  slog.Record
	handler slog.Handler
}

type unlimitedKey struct{}

// Unlimited returns a context whose log lines are always written. It is for records that must be complete, such as
// operators' actions. It must not be used for lines that a client can cause.
func Unlimited(ctx context.Context) context.Context {
	return context.WithValue(ctx, unlimitedKey{}, true)
}

// Enabled reports whether the next handler writes lines of a level.
func (l *Limiter) Enabled(ctx context.Context, level slog.Level) bool {
	return l.next.Enabled(ctx, level)
}

// Handle writes a line or holds it back.
func (l *Limiter) Handle(ctx context.Context, record slog.Record) error {
	if ctx.Value(unlimitedKey{}) != nil || l.table.admits(ctx, l, record) {
		return l.next.Handle(ctx, record)
	}
	return nil
}

// WithAttrs returns a handler with additional attributes; it shares the limits of l.
func (l *Limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	derived := *l
	derived.next = l.next.WithAttrs(attrs)
	for _, attr := range attrs {
		if attr.Key == partitionKey {
			derived.partition, derived.partitions = attr.Value, true
		}
	}
	return &derived
}

// WithGroup returns a handler that puts further attributes into a group; it shares the limits of l.
func (l *Limiter) WithGroup(name string) slog.Handler {
	derived := *l
	derived.next = l.next.WithGroup(name)
	return &derived
}

// partitionOf returns the partition that a line is about.
func (l *Limiter) partitionOf(record slog.Record) (slog.Value, bool) {
	value, found := l.partition, l.partitions
	record.Attrs(func(attr slog.Attr) bool {
		if attr.Key == partitionKey {
			value, found = attr.Value, true
		}
		return !found
	})
	return value, found
}

// Close writes the lines that are held back. Later lines are not limited, because the process is ending.
func (l *Limiter) Close() {
	l.table.mu.Lock()
	defer l.table.mu.Unlock()
	l.table.closed = true
	for kind, of := range l.table.kinds {
		of.timer.Stop()
		of.flush()
		delete(l.table.kinds, kind)
	}
}

// admits reports whether a line is written now. If not, it is held back.
func (t *lineTable) admits(ctx context.Context, by *Limiter, record slog.Record) bool {
	partition, aboutPartition := by.partitionOf(record)
	burst := lineBurst
	switch {
	case record.Level < slog.LevelInfo:
		burst = debugBurst
	case aboutPartition:
		burst = 1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return true
	}
	kind := lineKind{record.Level, record.Message}
	of := t.kinds[kind]
	if of == nil && len(t.kinds) >= maxKinds {
		kind.message = "" // no log line has an empty message
		of = t.kinds[kind]
	}
	if of == nil {
		of = &lines{pause: firstPause}
		of.timer = time.AfterFunc(of.pause, func() { t.elapsed(kind, of) })
		t.kinds[kind] = of
	}
	if of.written < burst {
		of.written++
		return true
	}
	if of.held != nil {
		of.others++
	}
	if aboutPartition {
		of.where.add(partition)
	}
	// The line is written after the call, so its attributes are copied, and the ids of the context's span are added now.
	of.held = &heldLine{withSpan(ctx, record), by.next}
	return false
}

// elapsed is called at the end of a pause.
func (t *lineTable) elapsed(kind lineKind, of *lines) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if of.held == nil {
		delete(t.kinds, kind) // the next lines have a full burst again
		return
	}
	of.flush()
	of.pause = min(2*of.pause, longestPause)
	of.timer.Reset(of.pause)
}

// flush writes the last line that was held back, which represents the others. An error of the log cannot be reported
// anywhere.
func (of *lines) flush() {
	if of.held == nil {
		return
	}
	record := of.held.record
	if of.others > 0 {
		record.AddAttrs(slog.Uint64("not_logged", of.others))
	}
	if of.where.several() {
		record.AddAttrs(slog.String("partitions", of.where.String()))
	}
	_ = of.held.handler.Handle(context.Background(), record)
	of.held, of.others, of.where = nil, 0, partitions{}
}
