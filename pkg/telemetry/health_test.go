package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// A check keeps its time as long as its state stays the same, even if the reason changes.
func TestHealthTellsSinceWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store, cache error
		a, err := NewAdmin(AdminConfig{}, Discard(), map[string]Check{
			"store": func(context.Context) error { return store },
			"cache": func(context.Context) error { return Degraded(cache) },
		})
		require.NoError(t, err)
		began := time.Now()
		require.Equal(t, Health{Ready: true, Checks: []CheckResult{
			{Name: "cache", State: CheckPassed, Since: began}, {Name: "store", State: CheckPassed, Since: began},
		}}, a.Health())

		time.Sleep(time.Minute)
		store, cache = errors.New("refused"), errors.New("away")
		failed := time.Now()
		a.Health()
		time.Sleep(time.Minute)
		store = errors.New("timed out")
		require.Equal(t, Health{Degraded: true, Checks: []CheckResult{
			{Name: "cache", State: CheckDegraded, Reason: "away", Since: failed}, {Name: "store", State: CheckFailed, Reason: "timed out", Since: failed},
		}}, a.Health())

		store = nil
		time.Sleep(checkReuse)
		a.SetReady(false)
		health := a.Health()
		require.False(t, health.Ready)
		require.True(t, health.Draining)
		require.Equal(t, time.Now(), health.Checks[1].Since, "it passes anew")
	})
}

// A check that does not end with its context fails. It does not hide other checks, and is not started twice.
func TestACheckThatHangsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var runs atomic.Int32
		a, err := NewAdmin(AdminConfig{}, Discard(), map[string]Check{
			"stuck": func(context.Context) error { runs.Add(1); <-release; return nil },
			"fine":  func(context.Context) error { return nil },
		})
		require.NoError(t, err)
		for range 3 {
			health := a.Health()
			require.False(t, health.Ready)
			require.Equal(t, CheckPassed, health.Checks[0].State)
			require.Equal(t, "no answer within 3s", health.Checks[1].Reason)
			time.Sleep(checkInterval)
		}
		require.EqualValues(t, 1, runs.Load())
		close(release)
		synctest.Wait()
		require.True(t, a.Health().Ready)
	})
}

// Checks write to disks and call other services. However often they are requested, they run at most four times a second.
func TestResultsAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		a, err := NewAdmin(AdminConfig{}, Discard(), map[string]Check{"store": func(context.Context) error { runs.Add(1); return nil }})
		require.NoError(t, err)
		for range 1000 {
			require.True(t, a.Health().Ready)
			time.Sleep(time.Millisecond)
		}
		require.EqualValues(t, 4, runs.Load())
	})
}

// The metrics follow the checks even if readiness is never requested.
func TestHealthIsExportedWithoutAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store, cache atomic.Bool // true if broken
		tel := Discard()
		fails := func(broken *atomic.Bool, mark func(error) error) Check {
			return func(context.Context) error {
				if broken.Load() {
					return mark(errors.New("away"))
				}
				return nil
			}
		}
		a, err := NewAdmin(AdminConfig{}, tel, map[string]Check{
			"store": fails(&store, func(err error) error { return err }), "cache": fails(&cache, Degraded),
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go a.watch(ctx)
		synctest.Wait()
		require.NoError(t, testutil.GatherAndCompare(tel.Registry, strings.NewReader(exported(1, 0)), "runnel_ready", "runnel_degraded"))
		store.Store(true)
		cache.Store(true)
		time.Sleep(checkInterval)
		synctest.Wait()
		require.NoError(t, testutil.GatherAndCompare(tel.Registry, strings.NewReader(exported(0, 1)), "runnel_ready", "runnel_degraded"))
	})
}

func exported(store, cache int) string {
	return fmt.Sprintf(`# HELP runnel_degraded 1 for each readiness check that failed and leaves the service ready, else 0.
# TYPE runnel_degraded gauge
runnel_degraded{check="cache"} %d
runnel_degraded{check="store"} 0
# HELP runnel_ready 0 for each readiness check that makes the service not ready, else 1.
# TYPE runnel_ready gauge
runnel_ready{check="cache"} 1
runnel_ready{check="store"} %d
`, cache, store)
}
