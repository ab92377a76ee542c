package partition

import (
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
)

// alarmInterval is the shortest time between two log lines of a partition's alarm.
const alarmInterval = time.Minute

// alarms is the alarm of a partition. Only the goroutine of Worker.Run uses it.
//
// An alarm that a message causes lasts until the partition has passed the message. Sessions that retry before then commit
// only the earlier messages, and do not end the alarm.
type alarms struct {
	// loggedAt is when the alarm was last logged. It is zero if no alarm is raised.
	loggedAt time.Time
	// barrier is the message that stops the partition.
	barrier barrier
}

// barrier identifies a message of a stream. The zero value means no message.
type barrier struct {
	stream   string // identity of the stream
	sequence ids.Sequence
}

func (a *alarms) raised() bool { return !a.loggedAt.IsZero() }

// barred reports whether the partition must pass a message before the alarm ends.
func (a *alarms) barred() bool { return a.barrier != barrier{} }

// pass records that all messages of a stream up to a sequence are handled.
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

// Calm ends the alarm, if an alarm is raised and the partition has passed the message that caused it.
func (w *Worker) Calm() {
	if w.alarms.raised() && !w.alarms.barred() {
		w.alarms.loggedAt = time.Time{}
		w.gauges.Stopped.Set(0)
		w.setState(stateRunning)
		w.Log.Info("the partition is working again")
	}
}

// bar makes a message the barrier of the next alarm.
func (s *session) bar(sequence ids.Sequence) {
	s.worker.alarms.barrier = barrier{s.commits.Identity, sequence}
}

// passed records that the messages up to a sequence are handled without a commit.
func (s *session) passed(sequence ids.Sequence) {
	s.worker.alarms.pass(s.commits.Identity, sequence)
	s.worker.Calm()
}

// forgetBarrier removes a barrier that this session will not meet, because it reads from a later sequence or from another
// stream. Another worker has handled the message, or the stream was replaced.
func (s *session) forgetBarrier(from ids.Sequence) {
	b := s.worker.alarms.barrier
	ahead := b.sequence > s.takenOver || (s.checked && b.sequence >= from)
	if b.stream != s.commits.Identity || !ahead {
		s.worker.alarms.barrier = barrier{}
	}
}
