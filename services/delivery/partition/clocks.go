package partition

import (
	"errors"
	"fmt"
	"time"

	"github.com/runnelhq/runnel/services/delivery/source"
)

const (
	// maxSkew is the difference between admission time and stream time above which an alarm is logged.
	maxSkew = 30 * time.Second
	// clocksInterval is the shortest interval between two logs of this alarm.
	clocksInterval = time.Minute
)

// ErrClocks means that the clocks disagree about a message of a replaced or rewound stream. By the broker's time the
// message is old; by the time of the gateway that admitted it, it is new. Skipping the message could lose it; carrying it
// out could repeat it.
var ErrClocks = errors.New("the clocks of the broker and of a gateway disagree about the age of a message")

// clocks records when the alarm about clocks was last logged, and how often the alarm was suppressed since.
type clocks struct {
	logged time.Time
	silent int
}

// watchClocks compares the stream times of commands with their admission times. A large difference means that a clock is
// wrong, or that a gateway retried a publish for a long time. Refusals are remembered long enough only while the
// difference is small.
func (w *Worker) watchClocks(entries []source.Message) {
	for i := range entries {
		apart := entries[i].Skew()
		if apart.Abs() <= maxSkew {
			continue
		}
		w.Metrics.ClockSkew.Inc()
		if now := w.Now(); now.Sub(w.clocks.logged) < clocksInterval {
			w.clocks.silent++
		} else {
			w.Log.Error("a command entered the stream long before or after it was admitted: check the clocks of the NATS servers and the gateways",
				"sequence", entries[i].Sequence, "stream_minus_admission", apart, "not_logged", w.clocks.silent)
			w.clocks = clocks{logged: now}
		}
	}
}

// Agrees checks that a message that is skipped because of its stream time is really old. If it was admitted later than
// its stream time, the message is new and a clock is wrong. If it was admitted long before, it may be a late copy, but it
// is old in any case. A message that is not a command has no sender who could lose it, so it is skipped without a check.
func Agrees(e *source.Message) error {
	if e.Command == nil || (e.Command.GetAdmittedMs() != 0 && e.Skew() >= -maxSkew) {
		return nil
	}
	return fmt.Errorf("%w: message %d has the stream's time %v and was admitted at %v. Correct the clocks; then delete the stream: "+
		"it is created again, and clients send again what was not committed", ErrClocks, e.Sequence, moment(e.TimeMs()), moment(e.Command.GetAdmittedMs()))
}

func moment(unixMs int64) string { return time.UnixMilli(unixMs).UTC().Format(time.RFC3339) }
