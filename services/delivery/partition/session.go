package partition

import (
	"context"

	"github.com/nats-io/nats.go"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/cursor"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/partition/commit"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/partition/reader"
	"github.com/runnelhq/runnel/services/delivery/partition/takeover"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/store"
)

// session is the work on a partition after one takeover. Its state in memory is discarded when it ends.
type session struct {
	worker    *Worker
	stream    string
	takenOver ids.Sequence // the last sequence whose outcome was committed at the takeover
	opening   *source.Message
	behind    uint64 // number of messages after the opening at the takeover
	// checked means that messages skipped at the takeover must agree with the commands' admission times.
	checked bool
	cache   *cache.Cache
	queue   *reader.Queue
	commits *commit.Committer
}

func newSession(w *Worker, at *takeover.Place) *session {
	opening := at.Opening
	if at.Checked && at.Sequence > 0 {
		// The admission times of skipped messages must be checked before any later message is committed. Therefore the
		// opening is committed together with the messages that are read.
		opening = nil
	}
	var behind uint64
	if opening != nil {
		behind = uint64(at.Last - opening.Sequence)
	}
	s := &session{
		worker: w, stream: broker.StreamName(w.Partition), takenOver: at.Sequence, opening: opening, behind: behind, checked: at.Checked,
		cache: cache.New(w.Config.CacheMembers), queue: reader.NewQueue(w.Config.MaxBatch, w.Config.MaxBatchBytes, w.gauges.Queue),
	}
	s.commits = commit.New(commit.Config{
		Host: w, Partition: w.Partition, Stream: s.stream, History: w.History, Planner: &w.planner, Cache: s.cache,
		Refusals: dedupe.NewRefusals(w.Config.MaxRefusals), Publisher: publish.New(w.Bus, w.Name, w.Log, w.Metrics),
		Recorder: w.Recorder, Tracer: w.Tracer, Metrics: w.Metrics, Gauges: w.gauges, Log: w.Log, Now: w.Now,
		MaxTries: w.Config.MaxTries, AppendTimeout: w.Config.AppendTimeout,
	}, at)
	return s
}

// flusher makes the flusher that stores the cursors of this session. It has a publisher of its own, because a publisher
// is not safe for concurrent use.
func (s *session) flusher() *cursor.Flusher {
	w := s.worker
	return &cursor.Flusher{
		Source: s.cache, Store: w.History, Interval: w.Config.FlushInterval, Timeout: w.Config.AppendTimeout,
		Publish: publish.New(w.Bus, w.Name, w.Log, w.Metrics).Receipt, Flushed: w.Metrics.Flushed, Failures: w.Metrics.FlushFailures,
	}
}

// listen applies the acknowledgements of this partition's members until the returned function is called.
func (s *session) listen() (stop func(), err error) {
	sub, err := s.worker.Bus.Subscribe(broker.AckSubject(s.worker.Partition), func(msg *nats.Msg) {
		var acks brokerv1.Acks
		if err := acks.UnmarshalVT(msg.Data); err != nil {
			s.worker.Metrics.AcksDropped.Inc()
			return
		}
		if dropped := s.cache.Acknowledge(acks.GetAcks(), s.worker.Now().UnixMilli()); dropped > 0 {
			s.worker.Metrics.AcksDropped.Add(float64(dropped))
		}
	})
	if err != nil {
		return nil, err
	}
	return func() { _ = sub.Unsubscribe() }, nil // fails only if the bus is closed, which also ends the subscription
}

// read starts to read the stream, from a little before the position. From the first message that was not received before,
// no message may be missing.
func (s *session) read(ctx context.Context, from ids.Sequence) (stop func(), err error) {
	strict := s.commits.Position() + 1
	if s.opening != nil {
		strict++
	}
	return reader.Start(ctx, s.worker.JS, s.stream, from, strict, s.queue)
}

// loop commits the batches that the reader delivers. Between batches it loads conversations for waiting acknowledgements.
// It has no timer: a single command is committed at once; under load, a batch contains the commands that arrived during
// the previous append.
func (s *session) loop(ctx context.Context) error {
	if s.opening != nil {
		if err := s.process(ctx, []source.Message{*s.opening}, s.behind); err != nil {
			return err
		}
	}
	var spare []source.Message
	for {
		select {
		case <-s.worker.stopping:
			return store.ErrStopping
		case <-ctx.Done():
			return store.ErrStopping
		case <-s.worker.resyncs:
			return errResync
		case <-s.cache.LoadWanted:
			if err := s.commits.LoadConversations(ctx, s.cache.Wanted(rpc.MaxItems)); err != nil {
				return err
			}
			s.cache.Trim()
		case <-s.queue.Ready:
			entries, pending, err := s.queue.TakeAll(spare)
			if err != nil {
				return err
			}
			if err := s.process(ctx, entries, pending); err != nil {
				return err
			}
			spare = entries
			s.cache.Trim()
		}
	}
}

// process commits a batch. For messages that were committed before the takeover, it only republishes the outcomes.
func (s *session) process(ctx context.Context, entries []source.Message, pending uint64) error {
	old := 0
	for old < len(entries) && entries[old].Sequence <= s.takenOver {
		old++
	}
	if old > 0 {
		if err := s.passOver(ctx, entries[:old]); err != nil {
			return err
		}
		entries = entries[old:]
	}
	for len(entries) > 0 && entries[0].Sequence <= s.commits.Position() {
		entries = entries[1:] // the opening was committed before
	}
	if len(entries) == 0 {
		return nil
	}
	s.commits.HeardLast(entries[len(entries)-1].Sequence + ids.Sequence(pending))
	s.worker.watchClocks(entries)
	s.worker.purger.Grow(entries)
	for len(entries) > 0 {
		n := plan.Cut(entries)
		if n == 0 {
			if err := s.worker.cannotJudge(ctx, &entries[0]); err != nil {
				s.bar(entries[0].Sequence)
				return err
			}
			continue
		}
		if err := s.commits.Commit(ctx, entries[:n], s.worker.Config.MaxTries); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// passOver republishes the outcomes of messages that count as committed at the takeover.
func (s *session) passOver(ctx context.Context, entries []source.Message) error {
	if s.checked {
		for i := range entries {
			if err := Agrees(&entries[i]); err != nil {
				s.bar(entries[i].Sequence)
				return err
			}
		}
		s.passed(entries[len(entries)-1].Sequence)
	}
	// All messages of a replaced stream are read, to check them. Only the outcomes of the newest messages are published.
	for len(entries) > 0 && entries[0].Sequence+ids.Sequence(s.worker.Config.RepublishCommands) <= s.takenOver {
		entries = entries[1:]
	}
	if len(entries) == 0 {
		return nil
	}
	return s.commits.Republish(ctx, entries)
}
