//go:build linux

package load

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// Pace calls send n times a second until ctx ends: an open loop, which waits for no answer. When it was held up it catches
// up at once. It returns how often it called send.
func Pace(ctx context.Context, perSecond int, send func(i int) error) (int, error) {
	begun := Now()
	for i := 0; ; i++ {
		due := begun + int64(time.Second)*int64(i)/int64(perSecond)
		for wait := due - Now(); wait > 0; wait = due - Now() {
			// Not a timer: the runtime's are as coarse as epoll's milliseconds. A signal may cut the sleep short.
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
