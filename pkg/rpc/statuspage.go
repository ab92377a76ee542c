package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/statuspage"
)

// BreakerTable shows, from the state of the circuit breakers, whether the process calls the services that it needs. If
// the process calls no services, there is no table.
func BreakerTable(gatherer prometheus.Gatherer) statuspage.Source {
	return func(context.Context) (statuspage.Table, error) {
		families, err := gatherer.Gather()
		if families == nil && err != nil {
			return statuspage.Table{Title: breakersTitle}, err
		}
		states, rejected := map[string]circuitbreaker.State{}, map[string]float64{}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				labels := map[string]string{}
				for _, label := range metric.GetLabel() {
					labels[label.GetName()] = label.GetValue()
				}
				switch {
				case family.GetName() == "runnel_rpc_breaker_state":
					states[labels["service"]] = circuitbreaker.State(metric.GetGauge().GetValue())
				case family.GetName() == "runnel_rpc_breaker_rejected_total" && labels["reason"] == "open":
					rejected[labels["service"]] += metric.GetCounter().GetValue()
				}
			}
		}
		return breakerTable(states, rejected), nil
	}
}

const breakersTitle = "Calls to other services"

// breakerTable marks the services that are not called at the moment. rejected contains the number of calls that were not
// made since the start.
func breakerTable(states map[string]circuitbreaker.State, rejected map[string]float64) statuspage.Table {
	if len(states) == 0 {
		return statuspage.Table{}
	}
	table := statuspage.Table{Title: breakersTitle, Columns: []string{"service", "circuit breaker", "calls not made since the start"}}
	var open []string
	for service, state := range states {
		is := "closed: calls are made"
		switch state {
		case circuitbreaker.OpenState:
			is = "open: calls fail at once"
		case circuitbreaker.HalfOpenState:
			is = "half open: one call tries the service"
		case circuitbreaker.ClosedState:
		}
		if state != circuitbreaker.ClosedState {
			open = append(open, service)
		}
		table.Rows = append(table.Rows, []string{service, is, fmt.Sprintf("%.0f", rejected[service])})
	}
	slices.SortFunc(table.Rows, func(x, y []string) int { return strings.Compare(x[0], y[0]) })
	for i, row := range table.Rows {
		if slices.Contains(open, row[0]) {
			table.Marked = append(table.Marked, i)
		}
	}
	slices.Sort(open)
	table.Summary = "no circuit breaker is open"
	if len(open) > 0 {
		table.Summary = strings.Join(open, ", ") + ": open"
		table.Attention = "Calls to " + strings.Join(open, " and ") + " failed too often and are paused for a moment: the circuit breaker is open. It tries again by itself."
	}
	return table
}
