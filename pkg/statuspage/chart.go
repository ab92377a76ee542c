package statuspage

// Kind is how a curve is computed from a metric.
type Kind int

// The kinds of charts.
const (
	// Value shows a gauge, summed over its labels.
	Value Kind = iota
	// Rate shows the growth of a counter per second, summed over its labels.
	Rate
	// P99 shows an upper bound of the 99th percentile of the values that a histogram observed between two samples.
	P99
)

// Chart describes one curve of the last half hour.
type Chart struct {
	// Title is unique on a page.
	Title string
	// Metric, Label and Is select the series of the curve; see the fields of Series.
	Metric, Label, Is string
	Kind              Kind
	// Unit is printed after numbers: "", "/s", "s", "B".
	Unit string
	// Detail hides the chart in the folded part of the page, among the charts for finding causes.
	Detail bool
}

func (c Chart) series() Series { return Series{Metric: c.Metric, Label: c.Label, Is: c.Is} }

// point returns the curve's value from two readings that are seconds apart; NaN if there is none.
func (c Chart) point(before, now reading, seconds float64) float64 {
	switch c.Kind {
	case Rate:
		return rate(before, now, seconds)
	case P99:
		return quantile(0.99, before, now)
	case Value:
	}
	return gauge(now)
}
