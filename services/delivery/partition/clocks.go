package partition

import (
	"errors"
	"fmt"
	"time"

	"github.com/runnelhq/runnel/services/delivery/source"
)

const (
	// maxSkew is how far admission and stream times may be apart before it is said aloud.
	maxSkew = 30 * time.Second
	// clocksInterval is how often that is logged at most.
	clocksInterval = time.Minute
)

// ErrClocks means that messages of a stream that was replaced or rewound look old by the broker's time and new by the time
// of the gateway that admitted them. To pass them over could lose them, to carry them out could repeat them.
var ErrClocks = errors.New("the clocks of the broker and of a gateway disagree about the age of a message")

// clocks is when the alarm about them was last logged, and how often it was not since.
type clocks struct {
	logged time.Time
	silent int
}

// watchClocks compares the times of commands that are read with their admission. Times far apart mean that a clock is wrong,
// or that a gateway tried again and again to get a command into the stream. Refusals are remembered for long enough as long
// as the difference is small.
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

// Agrees checks that a message that is passed over because of its time is as old as it looks. One that was admitted later
// than the stream says it was taken is new, and a clock is wrong. One that was admitted long before may be a late copy; it is old
// either way. What is no command was nobody's.
func Agrees(e *source.Message) error {
	if e.Command == nil || (e.Command.GetAdmittedMs() != 0 && e.Skew() >= -maxSkew) {
		return nil
	}
	return fmt.Errorf("%w: message %d has the stream's time %v and was admitted at %v. Correct the clocks; then delete the stream: "+
		"it is made anew, and clients send again what was not committed", ErrClocks, e.Sequence, moment(e.TimeMs()), moment(e.Command.GetAdmittedMs()))
}

func moment(unixMs int64) string { return time.UnixMilli(unixMs).UTC().Format(time.RFC3339) }
