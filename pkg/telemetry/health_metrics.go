package telemetry

import "github.com/prometheus/client_golang/prometheus"

// healthGauges contains the results of the checks as metrics, for alerts: an unready service can still be scraped.
type healthGauges struct{ ready, degraded *prometheus.GaugeVec }

func newHealthGauges(registerer prometheus.Registerer) healthGauges {
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"check"})
		registerer.MustRegister(g)
		return g
	}
	return healthGauges{
		ready:    gauge("runnel_ready", "0 for each readiness check that makes the service not ready, else 1."),
		degraded: gauge("runnel_degraded", "1 for each readiness check that failed and leaves the service ready, else 0."),
	}
}

func (g healthGauges) set(result CheckResult) {
	g.ready.WithLabelValues(result.Name).Set(number(result.State != CheckFailed))
	g.degraded.WithLabelValues(result.Name).Set(number(result.State == CheckDegraded))
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
