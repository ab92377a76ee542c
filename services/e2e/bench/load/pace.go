//go:build linux

package load

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// Pace calls send n times per second until ctx ends: an open loop, which waits for no answer. After a delay it catches up
// at once. It returns how often it called send.
func Pace(ctx context.Context, perSecond int, send func(i int) error) (int, error) {
	begun := Now()
	for i := 0; ; i++ {
		due := begun + int64(time.Second)*int64(i)/int64(perSecond)
		for wait := due - Now(); wait > 0; wait = due - Now() {
			// A timer is not used: the runtime's timers are as coarse as epoll's milliseconds. A signal may shorten the
			// sleep.
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
