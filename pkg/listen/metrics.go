package listen

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reason is the reason why a listener closed a socket.
type reason int

const (
	reasonFull reason = iota
	reasonUnauthenticated
	reasonAddress
	reasonNetwork
	reasonTimeout
	reasonProxyHeader
	reasonDescriptors
	numReasons
)

var reasonNames = [numReasons]string{
	"max_sockets", "max_unauthenticated", "max_per_address", "max_per_network", "timeout", "proxy_header", "no_descriptors",
}

// metrics are the series of one listener.
type metrics struct {
	open, unauthenticated, max prometheus.Gauge
	closed                     [numReasons]prometheus.Counter
}

// newMetrics creates the series of a listener. All listeners of a process share the metric families.
func newMetrics(name string, registerer prometheus.Registerer) (*metrics, error) {
	gauges := map[string]*prometheus.GaugeVec{}
	for family, help := range map[string]string{
		"sockets":                 "Open sockets of a listener.",
		"sockets_unauthenticated": "Open sockets of a listener whose client is not authenticated.",
		"sockets_max":             "Most sockets that a listener has open.",
	} {
		vec, err := register(registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "runnel", Subsystem: "listener", Name: family, Help: help,
		}, []string{"listener"}))
		if err != nil {
			return nil, err
		}
		gauges[family] = vec
	}
	closed, err := register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "runnel", Subsystem: "listener", Name: "closed_total", Help: "Sockets closed because of a limit of their listener, by reason.",
	}, []string{"listener", "reason"}))
	if err != nil {
		return nil, err
	}
	m := &metrics{
		open: gauges["sockets"].WithLabelValues(name), unauthenticated: gauges["sockets_unauthenticated"].WithLabelValues(name),
		max: gauges["sockets_max"].WithLabelValues(name),
	}
	for i := range m.closed {
		m.closed[i] = closed.WithLabelValues(name, reasonNames[i])
	}
	return m, nil
}

func register[C prometheus.Collector](registerer prometheus.Registerer, collector C) (C, error) {
	err := registerer.Register(collector)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return collector, fmt.Errorf("register the metrics of a listener: %w", err)
	}
	return collector, nil
}

// warningInterval is the minimum time between two warnings of a listener. Strangers can cause the warnings, so they must
// be limited.
const warningInterval = time.Minute

// warning warns operators that sockets are closed because of a limit.
type warning struct {
	listener string
	log      *slog.Logger

	mu      *sync.Mutex
	last    time.Time
	omitted int
}

func newWarning(cfg Config) warning {
	return warning{listener: cfg.Name, log: cfg.Log, mu: &sync.Mutex{}}
}

func (w *warning) write(because reason, client netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); w.last.IsZero() || now.Sub(w.last) >= warningInterval {
		w.log.Warn("a socket was closed because of a limit of its listener", "listener", w.listener, "reason", reasonNames[because],
			"address", client.String(), "omitted", w.omitted)
		w.last, w.omitted = now, 0
		return
	}
	w.omitted++
}
