package statuspage

import (
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Stage is one step on the way of a message: how many reach it, how long that takes, and how many wait for it. Rate and latency
// are those of the last minute, so that a single message can be seen and a peak does not stay.
type Stage struct {
	// Name is unique on a page, for example "Committed".
	Name string
	// Meaning says in a few words what is true for a message that has reached the stage.
	Meaning string
	// Rate is a counter or a histogram whose growth is the rate.
	Rate Series
	// Latency is a histogram of seconds; LatencyFrom says what they count from, for example "from the client's frame".
	Latency     Series
	LatencyFrom string
	// Backlog is a gauge of what waits to reach the stage.
	Backlog Series
	// BacklogOf names what waits, for example "commands waiting"; Unit follows the number: "" or "B".
	BacklogOf, BacklogUnit string
}

// Merge returns the stages of several services as one row. Stages with the same name become one: what the first leaves empty is
// taken from the later ones. Other stages follow in their order.
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

// window is the number of steps that the figures of a stage are made of: a minute.
const window = 12

// stageSample is what was read for a stage at one moment.
type stageSample struct {
	at                     time.Time
	rate, latency, backlog reading
}

// stageState holds the samples of one stage, oldest first: the present one and those of the last minute.
type stageState struct {
	samples []stageSample
	points  []float64 // the rate between samples, oldest first, for half an hour
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

// stageFigures is what /status.json says of a stage. A figure is null if it is not known.
type stageFigures struct {
	Name        string     `json:"name"`
	Meaning     string     `json:"meaning"`
	Rate        *float64   `json:"rate"`        // per second, over the last minute
	P50         *float64   `json:"p50_seconds"` // an upper bound, over the last minute
	P99         *float64   `json:"p99_seconds"`
	LatencyFrom string     `json:"latency_from"`
	Backlog     *float64   `json:"backlog"` // now
	BacklogOf   string     `json:"backlog_of"`
	BacklogUnit string     `json:"backlog_unit"`
	Points      []*float64 `json:"points"` // the rate in each step, oldest first
}

// figures computes what is shown of a stage.
func (s *stageState) figures(stage Stage) stageFigures {
	f := stageFigures{Name: stage.Name, Meaning: stage.Meaning, LatencyFrom: stage.LatencyFrom, BacklogOf: stage.BacklogOf, BacklogUnit: stage.BacklogUnit, Points: pointers(s.points)}
	if len(s.samples) == 0 {
		return f
	}
	now := s.samples[len(s.samples)-1]
	// A series may be younger than the window.
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
