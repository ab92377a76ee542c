//go:build linux

package load

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// Pace calls send n times per second until ctx ends. It never waits for answers (an open loop). After a delay it catches
// up at once. It returns the number of calls.
func Pace(ctx context.Context, perSecond int, send func(i int) error) (int, error) {
	begun := Now()
	for i := 0; ; i++ {
		due := begun + int64(time.Second)*int64(i)/int64(perSecond)
		for wait := due - Now(); wait > 0; wait = due - Now() {
			// Timers of the Go runtime are too coarse here: like epoll, they count milliseconds. A signal may shorten
			// this sleep.
			request := syscall.NsecToTimespec(min(wait, int64(50*time.Millisecond)))
			_ = syscall.Nanosleep(&request, nil)
			if ended(ctx) {
				return i, nil
			}
		}
		if ended(ctx) {
			return i, nil
		}
		if err := send(i); err != nil {
			return i, fmt.Errorf("message %d: %w", i, err)
		}
	}
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }
