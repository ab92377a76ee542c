// Package store is shared by the callers of the history service. It classifies errors by the reaction to them, waits
// between tries, and repeats reads until they are answered.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrStopping ends a call because the work on the partition is stopped.
var ErrStopping = errors.New("the partition is being released")

// BackoffCeiling is the longest wait between two tries.
const BackoffCeiling = 2 * time.Second

const backoffFloor = 50 * time.Millisecond

// Backoff is an exponential backoff with full jitter, from backoffFloor to backoffCeiling.
type Backoff struct{ Tries int }

// Next returns how long to wait before the next try.
func (b *Backoff) Next() time.Duration {
	ceiling := min(backoffFloor<<min(b.Tries, 10), BackoffCeiling)
	b.Tries++
	return rand.N(ceiling) + 1
}

// Fault classifies the errors of the store by the reaction to them.
type Fault int

// The faults.
const (
	Unanswered     Fault = iota // try the same request again; it may have been carried out
	WatermarkMoved              // the watermark is not the expected one
	StateDiffers                // the state of a conversation in memory is wrong, or the store is older than the requested data
	TooLarge                    // request fewer items at once
	Rejected                    // a part of the request cannot be carried out
	Damaged                     // events are missing in the store; a retry does not help
)

// FaultOf returns the fault of an error of the history service.
func FaultOf(err error) Fault {
	switch status.Code(err) {
	case codes.Aborted:
		return WatermarkMoved
	case codes.FailedPrecondition:
		return StateDiffers
	case codes.ResourceExhausted:
		return TooLarge
	case codes.InvalidArgument:
		// Only errors that the history service itself returns for a request. Internal, Unimplemented and similar codes
		// also come from proxies and incomplete rollouts; such errors must never lose a command.
		return Rejected
	case codes.DataLoss:
		return Damaged
	default:
		return Unanswered
	}
}

// Lasting reports whether a fault persists after all state was loaded again.
func (f Fault) Lasting() bool { return f != Unanswered && f != WatermarkMoved }

// Host is the worker on whose behalf reads are made.
type Host interface {
	// Stopped reports whether the work must end.
	Stopped() bool
	// Sleep waits for d, or until the work must end.
	Sleep(d time.Duration)
	// LookAtStream updates the lag while nothing can be committed.
	LookAtStream(ctx context.Context)
	// Alarm reports that the work is stopped until an operator acts.
	Alarm(err error)
	// Calm ends an alarm.
	Calm()
}

// Reads makes calls to the store and repeats them until they are answered. All fields are required.
type Reads struct {
	Host Host
	// Timeout is the time limit of one call.
	Timeout time.Duration
	// Retries counts calls that failed.
	Retries prometheus.Counter
	Log     *slog.Logger
}

// Ask makes a read call to the store and repeats it until it is answered or the work is stopped. If the answer for a list
// is too large, Ask requests each half separately. A lasting fault raises the alarm with each try.
func Ask[T any](ctx context.Context, r *Reads, what string, items []T, call func(ctx context.Context, items []T) error) error {
	var pause Backoff
	var alarmed bool
	for {
		attempt, cancel := context.WithTimeout(ctx, r.Timeout)
		err := call(attempt, items)
		cancel()
		switch {
		case err == nil:
			if alarmed {
				r.Host.Calm()
			}
			return nil
		case r.Host.Stopped() || ctx.Err() != nil:
			return ErrStopping
		case FaultOf(err) == TooLarge && len(items) > 1:
			half := len(items) / 2
			if err := Ask(ctx, r, what, items[:half], call); err != nil {
				return err
			}
			return Ask(ctx, r, what, items[half:], call)
		}
		r.Retries.Inc()
		alarmed = alarmed || FaultOf(err).Lasting()
		switch {
		case FaultOf(err) == Damaged:
			r.Host.Alarm(fmt.Errorf("%w; check the log with runnel admin conversations verify", err))
		case FaultOf(err) == TooLarge: // the request cannot be smaller
			r.Host.Alarm(fmt.Errorf("the %s of one conversation do not fit into one answer: %w", what, err))
		case FaultOf(err).Lasting():
			r.Host.Alarm(fmt.Errorf("the store refuses to answer for %s: %w", what, err))
		case pause.Tries == 0:
			r.Log.Warn("the store did not answer; trying again", "asked", what, "error", err)
		}
		r.Host.Sleep(pause.Next())
		if r.Host.Stopped() {
			return fmt.Errorf("%w while the store did not answer: %w", ErrStopping, err)
		}
		r.Host.LookAtStream(ctx)
	}
}
