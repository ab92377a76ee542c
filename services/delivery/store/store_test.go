package store

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// host records what is reported to the work.
type host struct {
	alarms []error
	calms  int
}

func (h *host) Stopped() bool                { return false }
func (h *host) Sleep(d time.Duration)        { time.Sleep(d) }
func (h *host) LookAtStream(context.Context) {}
func (h *host) Alarm(err error)              { h.alarms = append(h.alarms, err) }
func (h *host) Calm()                        { h.calms++ }

// A store that is unavailable is called again. Faults that a retry cannot repair stop the partition with an alarm: missing
// events, a single answer that is too large, and a request that the store refuses. The answer ends the alarm.
func TestAskReportsWhatDoesNotHeal(t *testing.T) {
	for name, c := range map[string]struct {
		code   codes.Code
		alarms int
	}{"away": {codes.Unavailable, 0}, "damaged": {codes.DataLoss, 3}, "too large": {codes.ResourceExhausted, 3}, "refused": {codes.InvalidArgument, 3}, "older": {codes.FailedPrecondition, 3}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, tries := &host{}, 0
				reads := &Reads{
					Host: h, Timeout: time.Second, Log: slog.New(slog.DiscardHandler),
					Retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "retries_total", Help: "Calls that failed."}),
				}
				require.NoError(t, Ask(t.Context(), reads, "commands", []int{1}, func(context.Context, []int) error {
					if tries++; tries <= 3 {
						return status.Error(c.code, "conversation g1 lacks event 7")
					}
					return nil
				}))
				require.Len(t, h.alarms, c.alarms)
				require.Equal(t, min(c.alarms, 1), h.calms)
				for _, err := range h.alarms {
					require.ErrorContains(t, err, "conversation g1 lacks event 7")
				}
			})
		})
	}
}

// A list whose answer is too large is requested in halves, down to one item.
func TestAskHalvesWhatIsTooLarge(t *testing.T) {
	h := &host{}
	reads := &Reads{
		Host: h, Timeout: time.Second, Log: slog.New(slog.DiscardHandler),
		Retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "retries_total", Help: "Calls that failed."}),
	}
	var asked []int
	require.NoError(t, Ask(t.Context(), reads, "commands", []int{1, 2, 3, 4, 5}, func(_ context.Context, items []int) error {
		if len(items) > 1 {
			return status.Error(codes.ResourceExhausted, "too large")
		}
		asked = append(asked, items...)
		return nil
	}))
	require.Equal(t, []int{1, 2, 3, 4, 5}, asked)
	require.Empty(t, h.alarms)
}
