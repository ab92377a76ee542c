package statuspage

import (
	"context"
	_ "embed" // the page's files
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

const (
	// step is the interval of samples. kept is the number of samples that are kept: half an hour.
	step = 5 * time.Second
	kept = 360
)

//go:embed page.html
var pageHTML []byte

//go:embed page.js
var pageJS []byte

//go:embed page.css
var pageCSS []byte

// Config describes the content of the page.
type Config struct {
	// Title is the name of the service.
	Title string
	// Version is the program's version for the footer; empty if it is not known.
	Version string
	// Health runs the readiness checks: Health of telemetry.Admin. If it is nil, the page does not show readiness.
	Health func() telemetry.Health
	// Gatherer contains the metrics of Stages and Charts.
	Gatherer prometheus.Gatherer
	// Stages are the stages of a message's path through the service, in order.
	Stages []Stage
	Charts []Chart
	Tables []Source
	Log    *slog.Logger
}

// Page is the status page of one process. It is an http.Handler for /, /status.json, /status.js and /status.css.
type Page struct {
	cfg     Config
	mux     *http.ServeMux
	started time.Time

	mu      sync.Mutex
	sampled time.Time
	last    []reading    // by chart
	points  [][]float64  // by chart, oldest first, at most kept
	stages  []stageState // by stage
}

// New makes a page. Its charts get data while Run runs.
func New(cfg Config) *Page {
	p := &Page{
		cfg: cfg, mux: http.NewServeMux(), started: time.Now(),
		last: make([]reading, len(cfg.Charts)), points: make([][]float64, len(cfg.Charts)), stages: make([]stageState, len(cfg.Stages)),
	}
	p.mux.HandleFunc("GET /{$}", static("text/html; charset=utf-8", pageHTML))
	p.mux.HandleFunc("GET /status.js", static("text/javascript; charset=utf-8", pageJS))
	p.mux.HandleFunc("GET /status.css", static("text/css; charset=utf-8", pageCSS))
	p.mux.HandleFunc("GET /status.json", p.status)
	return p
}

// Run samples the metrics until ctx ends. It also runs the readiness checks, so that the page can show since when a check
// fails.
func (p *Page) Run(ctx context.Context) error {
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		p.sample()
		if p.cfg.Health != nil {
			p.cfg.Health()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// sample adds one point to every chart and stage.
func (p *Page) sample() {
	gathered, err := p.cfg.Gatherer.Gather()
	if err != nil { // Gather returns the other metrics despite the error
		p.cfg.Log.Debug("some metrics could not be gathered for the status page", "error", err)
	}
	families := make(map[string]*dto.MetricFamily, len(gathered))
	for _, family := range gathered {
		families[family.GetName()] = family
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	seconds := now.Sub(p.sampled).Seconds()
	p.sampled = now
	for i, chart := range p.cfg.Charts {
		r := chart.series().read(families)
		p.points[i] = appendPoint(p.points[i], chart.point(p.last[i], r, seconds))
		p.last[i] = r
	}
	for i, stage := range p.cfg.Stages {
		p.stages[i].sample(stage, families, now)
	}
}

// appendPoint adds a point and removes the points older than half an hour.
func appendPoint(points []float64, point float64) []float64 {
	points = append(points, point)
	return slices.Delete(points, 0, max(0, len(points)-kept))
}

func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The page shows names that clients chose, so it may run and load only its own two files.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Referrer-Policy", "no-referrer")
	p.mux.ServeHTTP(w, r)
}

func static(contentType string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(content)
	}
}

// answer is the answer of /status.json. It contains the data of the page, and is also for programs.
type answer struct {
	Title     string         `json:"title"`
	Version   string         `json:"version"`
	StartedMs int64          `json:"started_ms"`
	NowMs     int64          `json:"now_ms"`
	StepMs    int64          `json:"step_ms"`
	Health    *health        `json:"health"` // null if the page has no checks
	Attention []string       `json:"attention"`
	Stages    []stageFigures `json:"stages"`
	Charts    []curve        `json:"charts"`
	Tables    []Table        `json:"tables"`
}

type health struct {
	Ready    bool    `json:"ready"`
	Draining bool    `json:"draining"`
	Degraded bool    `json:"degraded"`
	Checks   []check `json:"checks"`
}

type check struct {
	Name    string               `json:"name"`
	State   telemetry.CheckState `json:"state"`
	Reason  string               `json:"reason"`
	SinceMs int64                `json:"since_ms"`
}

type curve struct {
	Title  string     `json:"title"`
	Unit   string     `json:"unit"`
	Detail bool       `json:"detail"`
	Points []*float64 `json:"points"` // oldest first; null where there is no value
}

func (p *Page) status(w http.ResponseWriter, r *http.Request) {
	shown := answer{
		Title: p.cfg.Title, Version: p.cfg.Version, StartedMs: p.started.UnixMilli(), NowMs: time.Now().UnixMilli(), StepMs: step.Milliseconds(),
		Attention: []string{},
	}
	var asking sync.WaitGroup
	asking.Go(func() { shown.Health = p.health() })
	asking.Go(func() { shown.Tables = tables(r.Context(), p.cfg.Tables) })
	asking.Wait()
	for _, table := range shown.Tables {
		if table.Attention != "" {
			shown.Attention = append(shown.Attention, table.Attention)
		}
	}
	shown.Stages, shown.Charts = p.figures()
	body, err := json.Marshal(shown)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}

// health runs the checks; nil if there are none.
func (p *Page) health() *health {
	if p.cfg.Health == nil {
		return nil
	}
	now := p.cfg.Health()
	h := &health{Ready: now.Ready, Draining: now.Draining, Degraded: now.Degraded, Checks: []check{}}
	for _, c := range now.Checks {
		h.Checks = append(h.Checks, check{c.Name, c.State, c.Reason, c.Since.UnixMilli()})
	}
	return h
}

// figures returns the values computed from the samples.
func (p *Page) figures() ([]stageFigures, []curve) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stages, curves := make([]stageFigures, len(p.cfg.Stages)), make([]curve, len(p.cfg.Charts))
	for i, stage := range p.cfg.Stages {
		stages[i] = p.stages[i].figures(stage)
	}
	for i, chart := range p.cfg.Charts {
		curves[i] = curve{Title: chart.Title, Unit: chart.Unit, Detail: chart.Detail, Points: pointers(p.points[i])}
	}
	return stages, curves
}

// pointer returns a number for JSON; nil for NaN and infinity, which JSON does not have.
func pointer(value float64) *float64 {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil
	}
	return &value
}

func pointers(values []float64) []*float64 {
	all := make([]*float64, len(values))
	for i, value := range values {
		all[i] = pointer(value)
	}
	return all
}
