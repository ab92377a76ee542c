package telemetry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A check keeps its time as long as its state stays, also when the reason changes.
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
		a.SetReady(false)
		health := a.Health()
		require.False(t, health.Ready)
		require.True(t, health.Draining)
		require.Equal(t, time.Now(), health.Checks[1].Since, "it passes anew")
	})
}
