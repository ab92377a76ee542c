package partition

import (
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
)

// alarmInterval is the shortest interval between logs of the alarm of a partition.
const alarmInterval = time.Minute

// alarms is the alarm of a partition. Only the goroutine of Worker.Run uses it.
//
// An alarm that a message causes lasts until the partition is past that message: the sessions that try again in between work up
// to it, and do not end the alarm.
type alarms struct {
	// loggedAt is when the alarm was last logged; zero if none is raised.
	loggedAt time.Time
	// barrier is the message that stops the partition.
	barrier barrier
}

// barrier is a message of a stream; the zero value is none.
type barrier struct {
	stream   string // identity of the stream
	sequence ids.Sequence
}

func (a *alarms) raised() bool { return !a.loggedAt.IsZero() }

// barred reports whether the partition must get past a message before the alarm ends.
func (a *alarms) barred() bool { return a.barrier != barrier{} }

// pass records that everything in a stream up to a sequence is dealt with.
func (a *alarms) pass(stream string, sequence ids.Sequence) {
	if a.barrier.stream == stream && a.barrier.sequence <= sequence {
		a.barrier = barrier{}
	}
}

// Alarm reports that the partition is stopped until an operator acts. It logs at most once in alarmInterval.
func (w *Worker) Alarm(err error) {
	w.gauges.Stopped.Set(1)
	w.setState(stoppedPrefix + err.Error())
	if now := time.Now(); now.Sub(w.alarms.loggedAt) >= alarmInterval {
		w.alarms.loggedAt = now
		w.Log.Error("the partition is stopped", "reason", err)
	}
}

// Calm ends the alarm, if one is raised and the partition is past the message that caused it.
func (w *Worker) Calm() {
	if w.alarms.raised() && !w.alarms.barred() {
		w.alarms.loggedAt = time.Time{}
		w.gauges.Stopped.Set(0)
		w.setState(stateRunning)
		w.Log.Info("the partition is working again")
	}
}

// bar makes a message the barrier of the alarm that follows.
func (s *session) bar(sequence ids.Sequence) {
	s.worker.alarms.barrier = barrier{s.commits.Identity, sequence}
}

// passed records that the messages up to a sequence are dealt with without a commit.
func (s *session) passed(sequence ids.Sequence) {
	s.worker.alarms.pass(s.commits.Identity, sequence)
	s.worker.Calm()
}

// forgetBarrier removes a barrier that this session, which reads from a sequence on, does not meet: the message was dealt with by
// another worker, or belongs to a stream that was replaced.
func (s *session) forgetBarrier(from ids.Sequence) {
	b := s.worker.alarms.barrier
	ahead := b.sequence > s.takenOver || (s.checked && b.sequence >= from)
	if b.stream != s.commits.Identity || !ahead {
		s.worker.alarms.barrier = barrier{}
	}
}
