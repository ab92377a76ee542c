package statuspage

import (
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// Kind is how a metric becomes a curve.
type Kind int

// The kinds of charts.
const (
	// Value shows a gauge as it is, added up over its labels.
	Value Kind = iota
	// Rate shows how much a counter grows in a second, added up over its labels.
	Rate
	// P99 shows the 99th percentile of what a histogram observed between two samples, as its buckets tell it.
	P99
)

// Chart is one curve.
type Chart struct {
	Title string
	// Metric is the full name. A metric that is not there draws nothing.
	Metric string
	// Label and Is select the series with one label value; an empty Label takes all.
	Label, Is string
	Kind      Kind
	// Unit is written behind numbers: "", "/s", "s", "B".
	Unit string
}

// reading is what a chart needs of one moment.
type reading struct {
	found   bool
	value   float64
	buckets []*dto.Bucket // cumulative, by rising bound; added up over series
	count   uint64
}

// read takes a chart's reading out of the gathered metrics.
func (c Chart) read(families map[string]*dto.MetricFamily) reading {
	var r reading
	for _, metric := range families[c.Metric].GetMetric() {
		if c.Label != "" && !slices.ContainsFunc(metric.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == c.Label && l.GetValue() == c.Is }) {
			continue
		}
		r.found = true
		switch {
		case metric.GetCounter() != nil:
			r.value += metric.GetCounter().GetValue()
		case metric.GetGauge() != nil:
			r.value += metric.GetGauge().GetValue()
		case metric.GetHistogram() != nil:
			h := metric.GetHistogram()
			r.value += float64(h.GetSampleCount())
			r.count += h.GetSampleCount()
			r.add(h.GetBucket())
		}
	}
	return r
}

// add adds the buckets of one series. All series of a metric have the same bounds.
func (r *reading) add(buckets []*dto.Bucket) {
	if r.buckets == nil {
		r.buckets = make([]*dto.Bucket, len(buckets))
		for i, b := range buckets {
			r.buckets[i] = &dto.Bucket{UpperBound: new(b.GetUpperBound()), CumulativeCount: new(uint64(0))}
		}
	}
	for i, b := range buckets {
		if i < len(r.buckets) {
			*r.buckets[i].CumulativeCount += b.GetCumulativeCount()
		}
	}
}

// point is where the curve is after two readings, seconds apart; NaN where there is nothing to draw.
func (c Chart) point(before, now reading, seconds float64) float64 {
	switch {
	case !now.found:
		return math.NaN()
	case c.Kind == Value:
		return now.value
	case !before.found || seconds <= 0 || now.value < before.value:
		return math.NaN() // the first sample, or a counter that began anew
	case c.Kind == Rate:
		return (now.value - before.value) / seconds
	default:
		return quantile(0.99, before, now)
	}
}

// quantile is the upper bound of the bucket that the quantile of the observations between two readings falls into: the
// true one is at most that. Above the last bound it is NaN, as when nothing was observed.
func quantile(q float64, before, now reading) float64 {
	observed := now.count - before.count
	if observed == 0 {
		return math.NaN()
	}
	rank := uint64(math.Ceil(q * float64(observed)))
	for i, b := range now.buckets {
		earlier := uint64(0)
		if i < len(before.buckets) {
			earlier = before.buckets[i].GetCumulativeCount()
		}
		if b.GetCumulativeCount()-earlier >= rank && !math.IsInf(b.GetUpperBound(), 1) {
			return b.GetUpperBound()
		}
	}
	return math.NaN()
}
