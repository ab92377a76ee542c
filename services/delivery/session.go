package delivery

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/cursor"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// session is the work on a partition from one takeover on. All it knows is thrown away with it.
type session struct {
	owner     *owner
	stream    string
	takenOver uint64 // the last sequence that was committed at the takeover
	opening   *source.Message
	behind    uint64 // messages after the opening at the takeover
	// checked says that what is passed over at the takeover must agree with the commands' admission times.
	checked bool
	cache   *cache.Cache
	intake  *intake
	commits *committer
}

func newSession(o *owner, at *place) *session {
	opening := at.opening
	if at.checked && at.sequence > 0 {
		// What is passed over must be found to agree before anything is committed after it: the opening comes with the rest.
		opening = nil
	}
	var behind uint64
	if opening != nil {
		behind = at.last - opening.Sequence
	}
	s := &session{
		owner: o, stream: broker.StreamName(o.Partition), takenOver: at.sequence, opening: opening, behind: behind, checked: at.checked,
		cache: cache.New(o.Config.CacheMembers), intake: newIntake(o.Config.MaxBatch, o.Config.MaxBatchBytes, o.gauges.Queue),
	}
	s.commits = newCommitter(commitConfig{
		Host: o, Partition: o.Partition, Stream: s.stream, History: o.History, Planner: &o.planner, Cache: s.cache,
		Refusals: dedupe.NewRefusals(o.Config.MaxRefusals), Publisher: publish.New(o.NATS, o.Worker, o.Log, o.Metrics),
		Recorder: o.Recorder, Tracer: o.Tracer, Metrics: o.Metrics, Gauges: o.gauges, Log: o.Log, Now: o.Now,
		MaxTries: o.Config.MaxTries, AppendTimeout: o.Config.AppendTimeout,
	}, at)
	return s
}

// flusher stores the cursors of this session. It publishes on its own: a publisher is not safe for concurrent use.
func (s *session) flusher() *cursor.Flusher {
	o := s.owner
	return &cursor.Flusher{
		Source: s.cache, Store: o.History, Interval: o.Config.FlushInterval, Timeout: o.Config.AppendTimeout,
		Publish: publish.New(o.NATS, o.Worker, o.Log, o.Metrics).Receipt, Flushed: o.Metrics.Flushed, Failures: o.Metrics.FlushFailures,
	}
}

// listen takes the acknowledgements of this partition's members, until the returned function is called.
func (s *session) listen() (stop func(), err error) {
	sub, err := s.owner.NATS.Subscribe(broker.AckSubject(s.owner.Partition), func(msg *nats.Msg) {
		var acks brokerv1.Acks
		if err := acks.UnmarshalVT(msg.Data); err != nil {
			s.owner.Metrics.AcksDropped.Inc()
			return
		}
		if dropped := s.cache.Acknowledge(acks.GetAcks(), s.owner.Now().UnixMilli()); dropped > 0 {
			s.owner.Metrics.AcksDropped.Add(float64(dropped))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // fails only when the connection is closed, which ends it as well
}

// read begins to read the stream, from a little before the position. From the first message on that is not in hand yet,
// none may be missing.
func (s *session) read(ctx context.Context, from uint64) (stop func(), err error) {
	strict := s.commits.at() + 1
	if s.opening != nil {
		strict++
	}
	return startReader(ctx, s.owner.JS, s.stream, from, strict, s.intake)
}

// loop commits what the reader brings, batch by batch, and loads what acknowledgements ask for in between. There is no
// timer: a lone command goes at once, and under load a batch is what gathered while the one before it was appended.
func (s *session) loop(ctx context.Context) error {
	if s.opening != nil {
		if err := s.process(ctx, []source.Message{*s.opening}, s.behind); err != nil {
			return err
		}
	}
	var spare []source.Message
	for {
		select {
		case <-s.owner.stopping:
			return errStopping
		case <-ctx.Done():
			return errStopping
		case <-s.owner.resyncs:
			return errResync
		case <-s.cache.LoadWanted:
			if err := s.commits.load(ctx, s.cache.Wanted(rpc.MaxItems)); err != nil {
				return err
			}
			s.cache.Trim()
		case <-s.intake.ready:
			entries, pending, err := s.intake.take(spare)
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

// process commits a batch; messages that were committed before the takeover are only told once more.
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
	for len(entries) > 0 && entries[0].Sequence <= s.commits.at() {
		entries = entries[1:] // the opening, which was committed first
	}
	if len(entries) == 0 {
		return nil
	}
	s.commits.heard(entries[len(entries)-1].Sequence + pending)
	s.owner.watchClocks(entries)
	s.owner.room.grow(entries)
	for len(entries) > 0 {
		n := plan.Cut(entries)
		if n == 0 {
			if err := s.owner.cannotJudge(ctx, &entries[0]); err != nil {
				return err
			}
			continue
		}
		if err := s.commits.commit(ctx, entries[:n], s.owner.Config.MaxTries); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// passOver tells the outcomes of messages that count as committed at the takeover.
func (s *session) passOver(ctx context.Context, entries []source.Message) error {
	if s.checked {
		for i := range entries {
			if err := agrees(&entries[i]); err != nil {
				return err
			}
		}
	}
	// Of a stream that was replaced all are read, to be checked; only the newest are told.
	for len(entries) > 0 && entries[0].Sequence+uint64(s.owner.Config.RepublishCommands) <= s.takenOver {
		entries = entries[1:]
	}
	if len(entries) == 0 {
		return nil
	}
	return s.commits.republish(ctx, entries)
}
