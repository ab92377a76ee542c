package statuspage

// Kind is how a metric becomes a curve.
type Kind int

// The kinds of charts.
const (
	// Value shows a gauge, added up over its labels.
	Value Kind = iota
	// Rate shows the growth of a counter per second, added up over its labels.
	Rate
	// P99 shows an upper bound of the 99th percentile of what a histogram observed between two samples.
	P99
)

// Chart is one curve of the last half hour.
type Chart struct {
	// Title is unique on a page.
	Title string
	// Metric, Label and Is say what the curve shows; they are the fields of a Series.
	Metric, Label, Is string
	Kind              Kind
	// Unit follows numbers: "", "/s", "s", "B".
	Unit string
	// Detail folds the chart away, among those that one opens to find a cause.
	Detail bool
}

func (c Chart) series() Series { return Series{Metric: c.Metric, Label: c.Label, Is: c.Is} }

// point returns the curve's value after two readings, seconds apart; NaN if there is nothing to draw.
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
