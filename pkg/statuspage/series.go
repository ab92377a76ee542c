package statuspage

import (
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// Series selects a value from the metrics: the sum over series of one metric. The zero Series selects nothing.
type Series struct {
	// Metric is the full name of the metric. A metric that does not exist has no value.
	Metric string
	// Label and Is select the series whose label Label has the value Is; an empty Label selects all series.
	Label, Is string
}

// reading is the value of a Series at one moment.
type reading struct {
	found   bool
	value   float64       // for a histogram, the number of observations
	buckets []*dto.Bucket // cumulative, by rising bound; summed over the series
	count   uint64
}

// read reads the series from the gathered metrics.
func (s Series) read(families map[string]*dto.MetricFamily) reading {
	var r reading
	for _, metric := range families[s.Metric].GetMetric() {
		if s.Label != "" && !slices.ContainsFunc(metric.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == s.Label && l.GetValue() == s.Is }) {
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

// add adds the buckets of one series. All series of a metric have the same bucket bounds.
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

// gauge returns the value unchanged; NaN if there is none.
func gauge(now reading) float64 {
	if !now.found {
		return math.NaN()
	}
	return now.value
}

// rate returns the growth per second between two readings; NaN if one is missing, or if the counter was reset.
func rate(before, now reading, seconds float64) float64 {
	if !before.found || !now.found || seconds <= 0 || now.value < before.value {
		return math.NaN()
	}
	return (now.value - before.value) / seconds
}

// quantile returns an upper bound of a quantile of the observations between two readings: the bound of the bucket that
// contains the quantile. It returns NaN if the quantile is above the last bound, or if there are no observations.
func quantile(q float64, before, now reading) float64 {
	if !before.found || !now.found || now.count <= before.count {
		return math.NaN()
	}
	rank := uint64(math.Ceil(q * float64(now.count-before.count)))
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
