package torture

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// Config says what one run is like.
type Config struct {
	// Dir gets data and logs.
	Dir string
	// Binaries are the programs, built with whatever tags.
	Binaries launch.Binaries
	Store    launch.Store
	// NATSNodes is 1 or 3.
	NATSNodes int
	// Duration is how long load and faults go on.
	Duration time.Duration
	// Seed decides the faults and what is sent when. What comes of it also depends on the machine.
	Seed uint64
	// Wipe lets NATS lose its store now and then, on a single node.
	Wipe bool
	// FailFast ends the run with the first broken promise.
	FailFast bool
}

// Bounds of what a run waits for. Times are reported, and only these generous ones are asserted.
const (
	live       = 30 * time.Second // until everything works again after the last fault
	restarting = 60 * time.Second // until a part answers that was started again
	setup      = 90 * time.Second
	slack      = 25 // goroutines that a gateway may have more than before it had clients
)

// run is one run.
type run struct {
	Config
	out      io.Writer
	begun    time.Time
	random   *rand.Rand
	record   *Record
	database *Database
	witness  *Witness
	suite    *launch.Suite
	report   *Report

	devices   []*device
	observers []*observer
	// groups are the first conversations, made before anything goes wrong.
	groups []*churn
}

// Run starts everything, tortures it, and gives the verdict. The error is about the run itself: what it found is in the report.
// Progress goes to out.
func Run(ctx context.Context, cfg Config, out io.Writer) (*Report, error) {
	r := &run{
		Config: cfg, out: out, begun: time.Now(), random: rand.New(rand.NewPCG(cfg.Seed, 1)), record: NewRecord(),
		report: &Report{Seed: cfg.Seed, Store: string(cfg.Store), NATSNodes: cfg.NATSNodes, Dir: cfg.Dir},
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	defer r.suite.Kill()
	defer r.database.Close()
	if err := r.carryOut(ctx); err != nil {
		return nil, err
	}
	r.report.finish(r.record.Violations(), r.record.History(), time.Since(r.begun))
	return r.report, nil
}

func (r *run) start(ctx context.Context) (err error) {
	starting, cancel := context.WithTimeout(ctx, setup)
	defer cancel()
	histories := 1
	if r.Store == launch.PostgreSQL {
		histories = 2
	}
	r.suite, err = launch.Start(starting, launch.Options{
		Dir: r.Dir, Binaries: r.Binaries, Store: r.Store, NATSNodes: r.NATSNodes, Histories: histories,
		Flags: map[string][]string{
			launch.Gateway: {"--gateway.heartbeat=2s", "--gateway.ack-timeout=3s", "--gateway.command-rate-per-user=200"},
			// So short that the broker does not hide commands given twice from the store's unique key.
			launch.Delivery: {"--nats.duplicate-window=1s"},
		},
		Crashed: func(name string, err error) { r.record.Violated(violation("crash", "%s: %v", name, err)) },
	})
	if err != nil {
		return err
	}
	r.sayf("started: %s", strings.Join(names(r.suite.Parts()), " "))
	r.database = OpenDatabase(r.suite.Database)
	r.witness = NewWitness(r.database, r.record)
	if err := r.database.WatchWatermarks(starting); err != nil {
		r.suite.Kill()
		return err
	}
	return nil
}

func names(parts []launch.Part) []string {
	all := make([]string, len(parts))
	for i, part := range parts {
		all[i] = part.Name()
	}
	return all
}

// carryOut is the run itself, between start and verdict.
func (r *run) carryOut(ctx context.Context) error {
	before := r.gateways(ctx)
	// life is that of the clients; it ends after the load.
	life, end := context.WithCancel(ctx)
	defer end()
	var watching sync.WaitGroup
	watching.Go(func() { r.witness.Run(context.WithoutCancel(life)) })

	err := r.people(life)
	settle := make(chan struct{})
	var observing sync.WaitGroup
	if err == nil {
		for _, o := range r.observers {
			observing.Go(func() { o.run(life, settle) })
		}
		r.torture(life)
		close(settle)
		if !r.stopped(ctx) {
			r.settle(life)
		}
	}
	for _, d := range r.devices {
		if closing := d.close(); closing != nil {
			r.record.Violated(violation("client", "%s: %v", d.reader, closing))
		}
	}
	end()
	for _, d := range r.devices {
		d.waiting.Wait()
	}
	observing.Wait()
	r.witness.Finish()
	watching.Wait()
	r.report.Looks, r.report.LateLooks = r.witness.Looks()
	if err != nil || r.stopped(ctx) {
		return err
	}
	r.cool(ctx, before)
	r.sayf("stopping and checking")
	if err := r.stopServices(); err != nil {
		r.record.Violated(violation("clean stop", "%v", err))
	}
	content, err := r.database.Content(ctx)
	if err != nil {
		return fmt.Errorf("read the database in the end: %w", err)
	}
	content.Regressions = r.unexplained(content.Regressions)
	r.record.Violated(Check(r.record.History(), content)...)
	r.report.stored(r.record.History(), content)
	return nil
}

// stopped tells that there is no use in going on.
func (r *run) stopped(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	select {
	case <-r.record.Broken():
		return r.FailFast
	default:
		return false
	}
}

// The people of a run.
const (
	peopleCount   = 12
	groupCount    = 5
	directCount   = 3
	churningCount = 2
	observerCount = 3
)

// people opens the devices and makes the first conversations, while nothing goes wrong yet.
func (r *run) people(ctx context.Context) error {
	shared := &world{record: r.record, witness: r.witness, dialer: newDialer(r.suite.URLs, r.Seed), token: r.suite.Token}
	codecs := []frame.Codec{frame.Proto, frame.JSON}
	for i := range peopleCount {
		user := fmt.Sprintf("user%02d", i)
		for n := range 1 + (i+1)%2 {
			d := newDevice(ctx, shared, Reader{user, fmt.Sprintf("device%d", n)}, codecs[(i+n)%2])
			if err := d.open(); err != nil {
				return err
			}
			r.devices = append(r.devices, d)
		}
		if len(r.observers) < observerCount && i%3 == 0 {
			r.observers = append(r.observers, newObserver(shared, Reader{user, "observer"}, codecs[len(r.observers)%2], r.Seed+uint64(i)))
		}
	}
	var made []*sending
	for i := range groupCount + directCount {
		order := r.random.Perm(len(r.devices))
		owner, others := r.devices[order[0]], users(r.devices, order)
		body := direct(others[0])
		if i < groupCount {
			others = others[:2+r.random.IntN(3)]
			body = group(fmt.Sprintf("group %d", i), others...)
		}
		s, err := owner.send("", body)
		if err != nil {
			return err
		}
		made = append(made, s)
		if i < churningCount {
			c := &churn{id: s.key.Conversation, owner: owner}
			for _, user := range others {
				c.others = append(c.others, r.deviceOf(user))
			}
			r.groups = append(r.groups, c)
		}
	}
	deadline := time.After(live)
	for _, s := range made {
		select {
		case <-s.done:
		case <-deadline:
			return fmt.Errorf("%s was not answered within %v, with nothing wrong: see the logs in %s", s.key, live, r.Dir)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.sayf("%d devices and %d observers are connected, %d conversations made", len(r.devices), len(r.observers), len(made))
	return nil
}

func (r *run) deviceOf(user string) *device {
	for _, d := range r.devices {
		if d.reader.User == user {
			return d
		}
	}
	return nil
}

// torture puts load on the suite and inflicts faults on it for the run's duration.
func (r *run) torture(ctx context.Context) {
	loading, stop := context.WithTimeout(ctx, r.Duration)
	defer stop()
	if r.FailFast {
		go func() {
			select {
			case <-r.record.Broken():
				stop()
			case <-loading.Done():
			}
		}()
	}
	var load sync.WaitGroup
	source := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(r.Seed, 100+stream)) }
	for i, d := range r.devices {
		load.Go(func() { d.load(loading, source(uint64(i))) })
	}
	for i, c := range r.groups {
		load.Go(func() { c.run(loading, source(uint64(1000+i))) })
	}
	load.Go(func() { found(loading, source(2000), r.devices) })
	load.Go(func() { r.progress(loading) })
	load.Go(func() { r.watchWatermarks(loading) })

	i := injector{suite: r.suite, record: r.record, restart: restarting, before: r.beforeFault, after: r.afterFault}
	faults := Schedule(r.random, names(r.suite.Parts()), r.Duration, r.Wipe && r.NATSNodes == 1)
	i.run(loading, time.Now(), faults)
	load.Wait()
}

func (r *run) beforeFault(f Fault) {
	r.sayf("%s", f)
	if f.Kind == FaultKill && strings.HasPrefix(f.Part, "history") {
		r.database.Close()
	}
}

func (r *run) afterFault(f Fault, took time.Duration) {
	r.sayf("  %s works again after %v", f.Part, took.Round(time.Millisecond))
}

const progressInterval = 5 * time.Second

func (r *run) progress(ctx context.Context) {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			sent, committed, refused, shown := r.record.counts()
			looks, late := r.witness.Looks()
			r.sayf("sent %d, committed %d, refused %d, shown %d; looked %d times into the database, %d late; %d violations",
				sent, committed, refused, shown, looks, late, len(r.record.Violations()))
		}
	}
}

// watchWatermarks sees a watermark that went back as soon as the database tells, so that a run with FailFast need not go on.
func (r *run) watchWatermarks(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			regressions, _ := r.database.Regressions(ctx) // when it is down, the next time
			for _, regression := range r.unexplained(regressions) {
				r.record.Violated(wentBack(regression))
			}
		}
	}
}

func (r *run) sayf(format string, args ...any) {
	fmt.Fprintf(r.out, "%7.2fs  %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

func (r *run) stopServices() error {
	// The database outlives the services: what they stored is read from it.
	for _, processes := range [][]*launch.Process{r.suite.Gateways, r.suite.Deliveries, r.suite.Histories, r.suite.NATS} {
		for _, p := range processes {
			if err := p.Stop(); err != nil {
				return err
			}
		}
	}
	return nil
}

// unexplained leaves out watermarks that went back because the broker lost the end of a stream, which the worker notices and says.
func (r *run) unexplained(regressions []string) []string {
	explained := 0
	for _, p := range r.suite.Deliveries {
		explained += countLines(filepath.Join(r.Dir, p.Name()+".log"), "the broker lost messages it had acknowledged")
	}
	r.report.Rewinds = explained
	if len(regressions) <= explained {
		return nil
	}
	return regressions
}
