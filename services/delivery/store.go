package delivery

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

// errStopping ends a call because the work on the partition is stopped.
var errStopping = errors.New("the partition is being given up")

const backoffFloor, backoffCeiling = 50 * time.Millisecond, 2 * time.Second

// backoff is exponential with full jitter, from backoffFloor to backoffCeiling.
type backoff struct{ tries int }

func (b *backoff) next() time.Duration {
	ceiling := min(backoffFloor<<min(b.tries, 10), backoffCeiling)
	b.tries++
	return rand.N(ceiling) + 1
}

// fault sorts the errors of the store by what is to be done about them.
type fault int

const (
	faultAway    fault = iota // try the same again; it may have been carried out
	faultMoved                // the watermark is not where it was expected
	faultTaken                // the state of a conversation in memory is wrong
	faultTooMuch              // ask for less at once
	faultPoison               // something in the request cannot be done
)

func faultOf(err error) fault {
	switch status.Code(err) {
	case codes.Aborted:
		return faultMoved
	case codes.FailedPrecondition:
		return faultTaken
	case codes.ResourceExhausted:
		return faultTooMuch
	case codes.InvalidArgument:
		// Only what the history service itself finds wrong with a request. Internal, Unimplemented and the like also come from
		// proxies and half-finished rollouts, and no command must be lost to a mishap.
		return faultPoison
	default:
		return faultAway
	}
}

// readsHost is the work that reads.
type readsHost interface {
	// Stopped reports whether the work is to end.
	Stopped() bool
	// Sleep waits, but not beyond the end of the work.
	Sleep(d time.Duration)
	// LookAtStream updates the lag while nothing can be committed.
	LookAtStream(ctx context.Context)
}

// reads are calls to the store that are repeated until they are answered. All fields are required.
type reads struct {
	Host readsHost
	// Timeout is how long one call may take.
	Timeout time.Duration
	// Retries counts calls that failed.
	Retries prometheus.Counter
	Log     *slog.Logger
}

// ask calls the store for something that only reads, until it answers or the work is stopped. If the answer to a list is too
// large, each half is asked for.
func ask[T any](ctx context.Context, r *reads, what string, items []T, call func(ctx context.Context, items []T) error) error {
	var pause backoff
	for {
		attempt, cancel := context.WithTimeout(ctx, r.Timeout)
		err := call(attempt, items)
		cancel()
		switch {
		case err == nil:
			return nil
		case r.Host.Stopped() || ctx.Err() != nil:
			return errStopping
		case faultOf(err) == faultTooMuch && len(items) > 1:
			half := len(items) / 2
			if err := ask(ctx, r, what, items[:half], call); err != nil {
				return err
			}
			return ask(ctx, r, what, items[half:], call)
		}
		r.Retries.Inc()
		if pause.tries == 0 {
			r.Log.Warn("the store did not answer; trying again", "asked", what, "error", err)
		}
		r.Host.Sleep(pause.next())
		if r.Host.Stopped() {
			return fmt.Errorf("%w while the store did not answer: %w", errStopping, err)
		}
		r.Host.LookAtStream(ctx)
	}
}
