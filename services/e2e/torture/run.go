package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// Plan selects the faults of a run.
type Plan string

// The plans.
const (
	// PlanRandom kills, stops and pauses parts at random times.
	PlanRandom Plan = "random"
	// PlanTour has each kind of fault once, one after another: see Tour. It requires PostgreSQL and a cluster of NATS
	// servers.
	PlanTour Plan = "tour"
	// PlanGrandTour is a longer tour: see GrandTour.
	PlanGrandTour Plan = "grand-tour"
	// PlanMix draws faults of all kinds, two at a time: see Mix. It requires PostgreSQL.
	PlanMix Plan = "mix"
	// PlanOutages has full disks and power losses: see Outages. Like PlanPower, it requires Linux and root.
	PlanOutages Plan = "outages"
	// PlanPower is one power loss of all volumes.
	PlanPower Plan = "power"
	// PlanWipe makes NATS lose its store repeatedly: see Wipes. It requires a single NATS server.
	PlanWipe Plan = "wipe"
)

// Lazy is a part that acknowledges data without syncing it. Such a run is the negative control for power losses.
type Lazy string

// The lazy parts.
const (
	LazyNobody   Lazy = ""
	LazyDatabase Lazy = "database" // with SQLite, the history service must be built with the bug
	LazyNATS     Lazy = "nats"
)

// Config configures one run.
type Config struct {
	// Name distinguishes the run from others.
	Name string
	// Dir is the directory for data and logs.
	Dir string
	// Binaries are the programs, built with any tags.
	Binaries launch.Binaries
	// Next are the programs of the next version. A part that is restarted becomes one of Next or of Binaries. If Next is
	// nil, versions are not mixed. Negative controls never mix versions.
	Next  launch.Binaries
	Store launch.Store
	// NATSNodes is 1 or 3.
	NATSNodes int
	// Plan defaults to PlanRandom.
	Plan Plan
	// Duration is how long load and faults continue, for plans without an end of their own.
	Duration time.Duration
	// Seed determines the faults and the load. The result also depends on the machine.
	Seed uint64
	// Wipe makes NATS lose its store from time to time, on a single server; only for PlanRandom.
	Wipe bool
	// StreamBytes is the size of each partition's stream. Defaults to 1 MiB, which is so small that committed commands
	// must be purged.
	StreamBytes int64
	// Lazy makes the run a negative control: it is green if the loss caused by the lazy part was detected.
	Lazy Lazy
	// FailFast ends the run at the first broken promise.
	FailFast bool
}

// profiles is the flag for profiles of processes, which are kept if a process does not become idle.
const profiles = "--admin.pprof"

// toured reports whether the faults come one at a time, so that each must have its intended effect.
func (c Config) toured() bool { return c.Plan == PlanTour || c.Plan == PlanGrandTour }

// proxied reports whether the plan disturbs the network.
func (c Config) proxied() bool { return c.toured() || c.Plan == PlanMix }

// mixes reports whether parts of two versions run together.
func (c Config) mixes() bool { return c.Next != nil && c.Lazy == LazyNobody }

// volumes returns the parts whose data must be on file systems that can fail.
func (c Config) volumes() []string {
	if c.Plan != PlanOutages && c.Plan != PlanPower {
		return nil
	}
	parts := []string{string(c.Store)}
	for i := range c.NATSNodes {
		parts = append(parts, "nats-"+strconv.Itoa(i))
	}
	return parts
}

// Time limits of a run's waits. Durations are only reported; the limits are generous.
const (
	live       = 30 * time.Second // until all parts work again after the last fault
	restarting = 60 * time.Second // until a restarted part answers
	giveUp     = 15 * time.Second // until the database of a lazy part counts as destroyed
	setup      = 90 * time.Second
	longest    = 10 * time.Minute // for a plan with an end of its own
)

// run is the state of one run.
type run struct {
	Config
	out      io.Writer
	begun    time.Time
	random   *rand.Rand
	record   *Record
	database *Database
	witness  *Witness
	suite    *launch.Suite
	disks    volumes
	report   *Report
	versions *versions // nil if versions are not mixed

	dialer    *dialer
	devices   []*device
	observers []*observer
	slow      *slowReader
	// groups are the first conversations, made before the first fault.
	groups    []*churn
	latecomer *latecomer
	newcomer  *newcomer // nil if versions are not mixed
	eraser    *eraser
	feed      *feed
	// genuine is the number of promises broken before the power loss of a negative control.
	genuine int
}

// Run starts all parts, tortures them, and gives the verdict. The report contains all findings; an error means that the
// run itself failed. ErrSkipped means that the run cannot be made on this machine. Progress is written to out.
func Run(ctx context.Context, cfg Config, out io.Writer) (report *Report, err error) {
	if cfg.Plan == "" {
		cfg.Plan = PlanRandom
	}
	if cfg.StreamBytes == 0 {
		cfg.StreamBytes = 1 << 20
	}
	r := &run{
		Config: cfg, out: out, begun: time.Now(), random: rand.New(rand.NewPCG(cfg.Seed, 1)), record: NewRecord(),
		report: &Report{
			Name: cfg.Name, Seed: cfg.Seed, Store: string(cfg.Store), NATSNodes: cfg.NATSNodes, Plan: cfg.Plan, Lazy: cfg.Lazy, Dir: cfg.Dir,
		},
	}
	// In any case, the processes end first; then their file systems are removed.
	defer func() { err = errors.Join(err, r.disks.unmount()) }()
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	defer r.suite.Kill()
	defer r.database.Close()
	if err := r.carryOut(ctx); err != nil {
		return nil, err
	}
	violations := r.record.Violations()
	if r.Lazy == LazyDatabase {
		r.report.Noticed, violations = violations[r.genuine:], violations[:r.genuine]
		if len(r.report.Noticed) == 0 {
			violations = append(violations, violation("control", "the database syncs nothing and has lost power, and everything is still there: nothing was shown"))
		}
	}
	r.report.finish(violations, r.record.History(), time.Since(r.begun))
	return r.report, nil
}

func (r *run) start(ctx context.Context) (err error) {
	starting, cancel := context.WithTimeout(ctx, setup)
	defer cancel()
	options := launch.Options{
		Dir: r.Dir, Binaries: r.Binaries, Store: r.Store, NATSNodes: r.NATSNodes, Histories: 1, Proxied: r.proxied(),
		Flags: map[string][]string{
			launch.Gateway: {
				"--gateway.heartbeat=2s", "--gateway.ack-timeout=3s", "--gateway.command-rate-per-user=200", "--gateway.add-rate-per-user=10000", "--gateway.read-rate-per-user=10000", "--gateway.send-queue-bytes=65536",
				profiles,
			},
			// So short that the broker soon forgets command ids, and the store's unique key must detect repeated
			// commands.
			launch.Delivery: {
				"--nats.duplicate-window=1s", "--nats.max-bytes=" + strconv.FormatInt(r.StreamBytes, 10), "--delivery.purge-interval=1s", profiles,
			},
			launch.History: {profiles},
		},
		LazyDatabase: r.Lazy == LazyDatabase && r.Store == launch.PostgreSQL,
		Crashed:      func(name string, err error) { r.record.Violated(violation("crash", "%s: %v", name, err)) },
	}
	if r.Store == launch.PostgreSQL {
		options.Histories = 2
	}
	if parts := r.volumes(); parts != nil {
		if err := os.MkdirAll(r.Dir, 0o755); err != nil {
			return fmt.Errorf("make the directory of the run: %w", err)
		}
		if r.disks, err = mountVolumes(r.Dir, parts...); err != nil {
			return err
		}
		options.DataDir = r.disks.data
		if r.Lazy != LazyNATS {
			options.NATSSync = "always"
		}
	}
	if r.suite, err = launch.Start(starting, options); err != nil {
		return err
	}
	r.sayf("started %s: %s", r.Name, strings.Join(names(r.suite.Parts()), " "))
	r.mix()
	r.database = OpenDatabase(r.suite.Database)
	r.witness = NewWitness(r.database, r.record)
	if err := r.database.WatchWatermarks(starting); err != nil {
		r.suite.Kill()
		return err
	}
	return nil
}

// mix makes parts change their version from now on, if the run mixes versions.
func (r *run) mix() {
	if r.mixes() {
		r.versions = newVersions(r.suite.Parts(), [2]launch.Binaries{r.Binaries, r.Next}, r.Seed, r.sayf)
	}
}

func names(parts []launch.Part) []string {
	all := make([]string, len(parts))
	for i, part := range parts {
		all[i] = part.Name()
	}
	return all
}

// carryOut makes the run, between start and verdict.
func (r *run) carryOut(ctx context.Context) error {
	r.warm(ctx)
	// life is the context of the clients; it ends after the load.
	life, end := context.WithCancel(ctx)
	defer end()
	var watching sync.WaitGroup
	watching.Go(func() { r.witness.Run(context.WithoutCancel(life)) })

	err := r.people(life)
	if err == nil {
		err = r.operators()
	}
	settle := make(chan struct{})
	var observing sync.WaitGroup
	if err == nil {
		defer r.feed.close()
		defer r.eraser.close()
		for _, o := range r.observers {
			observing.Go(func() { o.run(life, settle) })
		}
		reading, stop := context.WithCancel(life)
		readers := r.readFeeds(reading)
		r.torture(life)
		close(settle)
		if !r.stopped(ctx) {
			r.settle(life)
		}
		stop()
		readers.Wait()
		if !r.stopped(ctx) {
			r.feed.catchUp(life, partitions)
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
	r.report.Resumed = r.resumed()
	if r.report.Versions = r.versions.summary(); r.newcomer != nil {
		r.report.Versions.Hinted = r.newcomer.committed
	}
	if err != nil || r.stopped(ctx) {
		return err
	}
	return r.conclude(ctx)
}

// conclude stops the services and compares the record with the stored data.
func (r *run) conclude(ctx context.Context) error {
	r.cool(ctx)
	// cool has reported the gateways that do not answer.
	for _, p := range r.suite.Gateways {
		metrics, _ := p.Metrics(ctx)
		if forks := metrics["runnel_gateway_forks_total"]; forks > 0 {
			r.record.Violated(violation("fork", "%s told clients %v times that a log went back, and none did", p.Name(), forks))
		}
	}
	for _, p := range r.suite.Deliveries {
		metrics, _ := p.Metrics(ctx)
		r.report.Purged += int(metrics["runnel_delivery_purged_messages_total"])
	}
	r.record.Violated(r.versions.check(ctx, r.suite.Deliveries)...)
	r.sayf("stopping and checking")
	if err := r.stopServices(); err != nil {
		r.record.Violated(violation("clean stop", "%v", err))
	}
	r.database.Close() // these connections are from before a restart of the database
	content, err := r.database.Content(ctx)
	if err != nil {
		return fmt.Errorf("read the database in the end: %w", err)
	}
	r.report.Rewinds = r.rewinds()
	r.record.Violated(Check(r.record.History(), content)...)
	r.report.stored(r.record.History(), content)
	switch {
	case r.Lazy == LazyNATS && r.report.Rewinds == 0:
		r.record.Violated(violation("control", "NATS lost power with two minutes between its syncs, and no worker noticed a loss: nothing was shown"))
	case r.Lazy == LazyNobody && r.disks != nil && r.report.Rewinds > 0:
		r.record.Violated(violation("power", "NATS syncs always, and workers noticed %d times that it lost what it had acknowledged", r.report.Rewinds))
	}
	return nil
}

// stopped reports whether the run should end: it was interrupted, a broken promise ends it, or a negative control has
// lost its data.
func (r *run) stopped(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	select {
	case <-r.record.Broken():
		return r.failFast()
	default:
		return r.Lazy == LazyDatabase
	}
}

// failFast reports whether the first broken promise ends the run. It does after a lazy database has lost data, because
// everything later is then wrong.
func (r *run) failFast() bool { return r.FailFast || r.Lazy == LazyDatabase }

// resumed returns the number of connections of clients after their first.
func (r *run) resumed() int {
	connections := r.dialer.connections()
	if r.slow != nil {
		connections += r.slow.dialer.connections()
	}
	return max(0, connections-len(r.devices)-len(r.observers))
}

// torture puts load on the suite and inflicts faults on it, until the plan or its time ends.
func (r *run) torture(ctx context.Context) {
	duration := r.Duration
	if r.Plan != PlanRandom && r.Plan != PlanMix {
		duration = longest
	}
	loading, stop := context.WithTimeout(ctx, duration)
	defer stop()
	if r.failFast() {
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
	load.Go(func() { r.eraser.run(loading, source(2001), r.devices) })
	load.Go(func() { r.latecomer.run(loading) })
	if r.newcomer != nil {
		load.Go(func() { r.newcomer.run(loading) })
	}
	load.Go(func() { r.snapshots(loading, source(2002)) })
	load.Go(func() { r.progress(loading) })
	load.Go(func() { r.watchWatermarks(loading) })
	r.inflict(loading)
	stop()
	load.Wait()
}

// inflict carries out the plan.
func (r *run) inflict(ctx context.Context) {
	i := &injector{
		suite: r.suite, record: r.record, database: r.database, volumes: r.disks, slow: r.slow, versions: r.versions, restart: restarting,
		before: r.beforeFault, after: r.afterFault, shown: r.toured(),
	}
	if r.Lazy == LazyDatabase {
		i.restart = giveUp
	}
	parts := names(r.suite.Parts())
	rest := func() time.Duration { return 700 * time.Millisecond }
	// The files were written without syncing, like databases of tests.
	if err := r.disks.sync(); err != nil {
		r.record.Violated(violation("I9", "%v", err))
		return
	}
	switch r.Plan {
	case PlanTour, PlanGrandTour:
		faults := Tour
		if r.Plan == PlanGrandTour {
			faults = GrandTour
		}
		// The interval is long enough to distinguish the effects of the faults on waits.
		i.lane(ctx, func() time.Duration { return 1100 * time.Millisecond }, list(faults(r.random)))
	case PlanWipe:
		i.lane(ctx, func() time.Duration { return 3 * time.Second }, list(Wipes()))
	case PlanOutages:
		i.lane(ctx, func() time.Duration { return 3 * time.Second }, list(Outages(r.random, r.Store, r.NATSNodes)))
	case PlanPower:
		i.lane(ctx, func() time.Duration { return 3 * time.Second }, list([]Fault{{Kind: FaultPower, Part: everything}}))
	case PlanMix:
		var lanes sync.WaitGroup
		for n := range uint64(maxDown) {
			random := rand.New(rand.NewPCG(r.Seed, 5000+n))
			lanes.Go(func() {
				i.lane(ctx, func() time.Duration { return rest() + time.Duration(random.Int64N(int64(2*rest()))) }, Mix(random, parts))
			})
		}
		lanes.Wait()
	case PlanRandom:
		i.run(ctx, time.Now(), Schedule(r.random, parts, r.Duration, r.Wipe && r.NATSNodes == 1))
		<-ctx.Done() // the load continues for its full time
	}
	r.report.Counts = i.Counts()
}

func (r *run) beforeFault(f Fault) {
	r.sayf("%s", f)
	switch {
	case f.Kind == FaultKill && strings.HasPrefix(f.Part, "history"):
		r.database.Close()
	case f.Kind == FaultPower:
		r.genuine = len(r.record.Violations())
	}
}

func (r *run) afterFault(f Fault, took time.Duration) {
	r.sayf("  %s: works again after %v", f.name(), took.Round(time.Millisecond))
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

// watchWatermarks reports a watermark that went back as soon as the database has recorded it, so that a run with FailFast
// can end.
func (r *run) watchWatermarks(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			regressions, _ := r.database.Regressions(ctx) // while the database is down, the error is ignored
			for _, regression := range regressions {
				r.record.Violated(wentBack(regression))
			}
		}
	}
}

func (r *run) sayf(format string, args ...any) {
	fmt.Fprintf(r.out, "%7.2fs  %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

func (r *run) stopServices() error {
	// Do not stop the database: the stored data is read from it afterwards.
	for _, p := range slices.Concat(r.suite.Gateways, r.suite.Deliveries, r.suite.Histories, r.suite.NATS) {
		if err := p.Stop(); err != nil {
			return err
		}
	}
	return nil
}

// rewinds returns how often workers noticed that the broker had lost the end of a stream, or the whole stream.
func (r *run) rewinds() (count int) {
	for _, p := range r.suite.Deliveries {
		log := filepath.Join(r.Dir, p.Name()+".log")
		count += countLines(log, "the broker lost messages it had acknowledged") + countLines(log, "the stream was lost and made anew")
	}
	return count
}
