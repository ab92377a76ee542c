package telemetry_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// If the installation has a name, every metric has it as a label in every scrape. A metric that already has a label of
// that name keeps its own value.
func TestMetricsNameTheInstallation(t *testing.T) {
	for name, want := range map[string]struct{ plain, own string }{
		"":     {`runnel_test_total{a="b",z="y"} 1`, `runnel_other_total{installation="own"} 1`},
		"blue": {`runnel_test_total{a="b",installation="blue",z="y"} 1`, `runnel_other_total{installation="own"} 1`},
	} {
		tel, err := telemetry.Start(t.Context(), "test", telemetry.Config{Installation: name}, io.Discard)
		require.NoError(t, err)
		plain := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "runnel_test_total", Help: "Test."}, []string{"z", "a"})
		own := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "runnel_other_total", Help: "Test."}, []string{"installation"})
		tel.Registry.MustRegister(plain, own)
		plain.WithLabelValues("y", "b").Inc()
		own.WithLabelValues("own").Inc()
		admin, err := telemetry.NewAdmin(telemetry.AdminConfig{Listen: "127.0.0.1:0"}, tel, nil)
		require.NoError(t, err)
		run(t, admin)
		for range 2 {
			code, body, _ := get(t, "http://"+admin.Addr()+"/metrics", "text/plain")
			require.Equal(t, http.StatusOK, code)
			require.Contains(t, body, want.plain)
			require.Contains(t, body, want.own)
		}
	}
	_, err := telemetry.Start(t.Context(), "test", telemetry.Config{Installation: "\xff"}, io.Discard)
	require.ErrorContains(t, err, "UTF-8")
}
