package delivery

import (
	"errors"
	"fmt"
	"time"
)

const (
	// maxSkew is how far admission and stream times may be apart before it is said aloud.
	maxSkew = 30 * time.Second
	// clocksInterval is how often that is logged at most.
	clocksInterval = time.Minute
)

// errClocks means that messages of a stream that was replaced or rewound look old by the broker's time and new by the time
// of the gateway that admitted them. To pass them over could lose them, to carry them out could repeat them.
var errClocks = errors.New("the clocks of the broker and of a gateway disagree about the age of a message")

// clocks is when the alarm about them was last logged, and how often it was not since.
type clocks struct {
	logged time.Time
	silent int
}

// watchClocks compares the times of commands that are read with their admission. Times far apart mean that a clock is wrong,
// or that a gateway tried again and again to get a command into the stream. Refusals are remembered for long enough as long
// as the difference is small.
func (o *owner) watchClocks(entries []entry) {
	for i := range entries {
		apart := entries[i].skew()
		if apart.Abs() <= maxSkew {
			continue
		}
		o.metrics.clockSkew.Inc()
		if now := o.now(); now.Sub(o.clocks.logged) < clocksInterval {
			o.clocks.silent++
		} else {
			o.log.Error("a command entered the stream long before or after it was admitted: check the clocks of the NATS servers and the gateways",
				"sequence", entries[i].sequence, "stream_minus_admission", apart, "not_logged", o.clocks.silent)
			o.clocks = clocks{logged: now}
		}
	}
}

// skew is how much later than its admission a command entered the stream; 0 when it carries no admission time.
func (e *entry) skew() time.Duration {
	if e.command.GetAdmittedMs() == 0 {
		return 0
	}
	return time.Duration(e.timeMs()-e.command.GetAdmittedMs()) * time.Millisecond
}

// agrees checks that a message that is passed over because of its time is as old as it looks. One that was admitted later
// than the stream says it was taken is new, and a clock is wrong. One that was admitted long before may be a late copy; it is old
// either way. What is no command was nobody's.
func agrees(e *entry) error {
	if e.command == nil || (e.command.GetAdmittedMs() != 0 && e.skew() >= -maxSkew) {
		return nil
	}
	return fmt.Errorf("%w: message %d has the stream's time %v and was admitted at %v. Correct the clocks; then delete the stream: "+
		"it is made anew, and clients send again what was not committed", errClocks, e.sequence, moment(e.timeMs()), moment(e.command.GetAdmittedMs()))
}

func moment(unixMs int64) string { return time.UnixMilli(unixMs).UTC().Format(time.RFC3339) }
