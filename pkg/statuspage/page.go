package statuspage

import (
	"context"
	_ "embed" // the page's files
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// step is how often the metrics are sampled, and kept how many samples are kept: half an hour.
	step = 5 * time.Second
	kept = 360
	// tableTimeout is what one table may take.
	tableTimeout = 3 * time.Second
)

//go:embed page.html
var pageHTML []byte

//go:embed page.js
var pageJS []byte

//go:embed page.css
var pageCSS []byte

// Table is what a Source returns: text for people.
type Table struct {
	Title   string     `json:"title"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
	// Note stands below, for example that there are more rows.
	Note string `json:"note,omitempty"`
}

// MaxRows is how many rows a Source should return at most.
const MaxRows = 100

// Source returns a table when somebody looks. It must return when its context ends.
type Source func(ctx context.Context) (Table, error)

// Config says what the page shows.
type Config struct {
	// Title is the name of the service.
	Title string
	// Gatherer has the metrics that Charts are drawn from.
	Gatherer prometheus.Gatherer
	Charts   []Chart
	Tables   []Source
	Log      *slog.Logger
}

// Page is the status page of one process. It is an http.Handler for /, /status.json, /status.js and /status.css.
type Page struct {
	cfg     Config
	mux     *http.ServeMux
	started time.Time

	mu      sync.Mutex
	sampled time.Time
	last    []reading   // by chart
	points  [][]float64 // by chart, oldest first, at most kept
}

// New makes a page; its charts fill while Run runs.
func New(cfg Config) *Page {
	p := &Page{cfg: cfg, mux: http.NewServeMux(), started: time.Now(), last: make([]reading, len(cfg.Charts)), points: make([][]float64, len(cfg.Charts))}
	p.mux.HandleFunc("GET /{$}", static("text/html; charset=utf-8", pageHTML))
	p.mux.HandleFunc("GET /status.js", static("text/javascript; charset=utf-8", pageJS))
	p.mux.HandleFunc("GET /status.css", static("text/css; charset=utf-8", pageCSS))
	p.mux.HandleFunc("GET /status.json", p.status)
	return p
}

// Run samples the metrics until ctx ends.
func (p *Page) Run(ctx context.Context) error {
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		p.sample()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// sample adds one point to every chart.
func (p *Page) sample() {
	gathered, err := p.cfg.Gatherer.Gather()
	if err != nil { // what could be gathered is there all the same
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
		r := chart.read(families)
		p.points[i] = append(p.points[i], chart.point(p.last[i], r, seconds))
		if extra := len(p.points[i]) - kept; extra > 0 {
			p.points[i] = append(p.points[i][:0], p.points[i][extra:]...)
		}
		p.last[i] = r
	}
}

func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The page shows names that clients chose; nothing in it may run or load anything but its own two files.
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

// status is the answer of /status.json.
type status struct {
	Title     string  `json:"title"`
	StartedMs int64   `json:"started_ms"`
	NowMs     int64   `json:"now_ms"`
	StepMs    int64   `json:"step_ms"`
	Charts    []curve `json:"charts"`
	Tables    []Table `json:"tables"`
}

type curve struct {
	Title  string     `json:"title"`
	Unit   string     `json:"unit"`
	Points []*float64 `json:"points"` // oldest first; null where there is nothing
}

func (p *Page) status(w http.ResponseWriter, r *http.Request) {
	answer := status{
		Title: p.cfg.Title, StartedMs: p.started.UnixMilli(), NowMs: time.Now().UnixMilli(), StepMs: step.Milliseconds(),
		Charts: p.curves(), Tables: p.tables(r.Context()),
	}
	body, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}

func (p *Page) curves() []curve {
	p.mu.Lock()
	defer p.mu.Unlock()
	curves := make([]curve, len(p.cfg.Charts))
	for i, chart := range p.cfg.Charts {
		curves[i] = curve{Title: chart.Title, Unit: chart.Unit, Points: make([]*float64, len(p.points[i]))}
		for j, point := range p.points[i] {
			if !math.IsNaN(point) && !math.IsInf(point, 0) { // JSON has neither
				curves[i].Points[j] = &point
			}
		}
	}
	return curves
}

// tables asks all sources side by side. One that fails says so in its place.
func (p *Page) tables(ctx context.Context) []Table {
	ctx, cancel := context.WithTimeout(ctx, tableTimeout)
	defer cancel()
	tables := make([]Table, len(p.cfg.Tables))
	var asking sync.WaitGroup
	for i, source := range p.cfg.Tables {
		asking.Go(func() {
			table, err := source(ctx)
			if err != nil {
				table.Note = "could not be asked: " + err.Error()
			}
			tables[i] = table
		})
	}
	asking.Wait()
	return tables
}
