package statuspage

import (
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Stage is one step on a message's path: how many messages reach it, how long this takes, and how many wait for it. Rate
// and latency cover the last minute, so that a single message is visible and a peak disappears soon.
type Stage struct {
	// Name is unique on a page, for example "Committed".
	Name string
	// Meaning states briefly what is true for a message that has reached the stage.
	Meaning string
	// Rate selects a counter or histogram; its growth is the rate.
	Rate Series
	// Latency selects a histogram of seconds. LatencyFrom states where the time begins, for example "from the client's
	// frame".
	Latency     Series
	LatencyFrom string
	// Backlog selects a gauge of the messages that wait to reach the stage.
	Backlog Series
	// BacklogOf names the waiting things, for example "commands waiting". BacklogUnit is printed after the number: "" or
	// "B".
	BacklogOf, BacklogUnit string
}

// Merge combines the stages of several services into one row. Stages with the same name become one stage; fields that are
// empty in the first are taken from later ones. Other stages follow in their order.
func Merge(services ...[]Stage) []Stage {
	var row []Stage
	for _, stage := range slices.Concat(services...) {
		i := slices.IndexFunc(row, func(s Stage) bool { return s.Name == stage.Name })
		if i < 0 {
			row = append(row, stage)
			continue
		}
		known := &row[i]
		if known.Meaning == "" {
			known.Meaning = stage.Meaning
		}
		if known.Rate == (Series{}) {
			known.Rate = stage.Rate
		}
		if known.Latency == (Series{}) {
			known.Latency, known.LatencyFrom = stage.Latency, stage.LatencyFrom
		}
		if known.Backlog == (Series{}) {
			known.Backlog, known.BacklogOf, known.BacklogUnit = stage.Backlog, stage.BacklogOf, stage.BacklogUnit
		}
	}
	return row
}

// window is the number of steps over which the figures of a stage are computed: one minute.
const window = 12

// stageSample contains the readings of a stage at one moment.
type stageSample struct {
	at                     time.Time
	rate, latency, backlog reading
}

// stageState contains the samples of one stage, oldest first: the newest sample and the samples of the last minute.
type stageState struct {
	samples []stageSample
	points  []float64 // the rate between two samples, oldest first, for half an hour
}

// sample adds a sample.
func (s *stageState) sample(stage Stage, families map[string]*dto.MetricFamily, now time.Time) {
	next := stageSample{now, stage.Rate.read(families), stage.Latency.read(families), stage.Backlog.read(families)}
	var last stageSample
	if len(s.samples) > 0 {
		last = s.samples[len(s.samples)-1]
	}
	s.points = appendPoint(s.points, rate(last.rate, next.rate, now.Sub(last.at).Seconds()))
	s.samples = append(s.samples, next)
	if extra := len(s.samples) - window - 1; extra > 0 {
		s.samples = slices.Delete(s.samples, 0, extra)
	}
}

// stageFigures is the part of /status.json about one stage. A figure is null if it is not known.
type stageFigures struct {
	Name        string     `json:"name"`
	Meaning     string     `json:"meaning"`
	Rate        *float64   `json:"rate"`        // per second, over the last minute
	P50         *float64   `json:"p50_seconds"` // an upper bound, over the last minute
	P99         *float64   `json:"p99_seconds"`
	LatencyFrom string     `json:"latency_from"`
	Backlog     *float64   `json:"backlog"` // present value
	BacklogOf   string     `json:"backlog_of"`
	BacklogUnit string     `json:"backlog_unit"`
	Points      []*float64 `json:"points"` // the rate in each step, oldest first
}

// figures computes the figures of a stage.
func (s *stageState) figures(stage Stage) stageFigures {
	f := stageFigures{Name: stage.Name, Meaning: stage.Meaning, LatencyFrom: stage.LatencyFrom, BacklogOf: stage.BacklogOf, BacklogUnit: stage.BacklogUnit, Points: pointers(s.points)}
	if len(s.samples) == 0 {
		return f
	}
	now := s.samples[len(s.samples)-1]
	// A series may have begun within the window.
	first := func(found func(stageSample) bool) stageSample {
		return s.samples[max(0, slices.IndexFunc(s.samples, found))]
	}
	rated := first(func(sample stageSample) bool { return sample.rate.found })
	timed := first(func(sample stageSample) bool { return sample.latency.found })
	f.Rate = pointer(rate(rated.rate, now.rate, now.at.Sub(rated.at).Seconds()))
	f.P50 = pointer(quantile(0.5, timed.latency, now.latency))
	f.P99 = pointer(quantile(0.99, timed.latency, now.latency))
	f.Backlog = pointer(gauge(now.backlog))
	return f
}
