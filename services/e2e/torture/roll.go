package torture

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/e2e/bench/load"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// RollConfig configures a roll of all gateways.
type RollConfig struct {
	// Dir is the directory for data and logs.
	Dir      string
	Binaries launch.Binaries
	// Next are the programs of the next version, which some gateways become; nil does not mix versions.
	Next launch.Binaries
	// Clients is the number of clients that stay connected during the roll. Gateways is the number of gateways over which
	// they are distributed.
	Clients, Gateways int
	Seed              uint64
}

const (
	// rollSenders is the number of clients that write, through the Go client. All other clients listen, through cheap
	// connections.
	rollSenders = 20
	rollGroup   = 9 // listeners per group
	// rollRate is the number of messages per second of all senders together.
	rollRate = 100
	// rollCalm is how long the system is observed before the roll, for comparison.
	rollCalm = 5 * time.Second
	// awayDelay is the assumed maximum delay that a gateway requests from a client that it sends away: the cheap
	// connections do not read the actual delay.
	awayDelay = time.Second
	rollSetup = 3 * time.Minute
)

// RollReport describes the effects of a roll on clients and on the history service.
type RollReport struct {
	Clients   int     `json:"clients"`
	Gateways  int     `json:"gateways"`
	Seconds   float64 `json:"seconds"`
	DrainRate int     `json:"drain_rate_per_second"`
	// SentAway is the number of connections closed with the code that asks clients to reconnect elsewhere. Dropped is the
	// number of connections that ended without it. PeakAway and PeakBack are the largest numbers of clients per second
	// that were sent away and that came back.
	SentAway int `json:"sent_away"`
	Dropped  int `json:"dropped"`
	PeakAway int `json:"peak_sent_away_per_second"`
	Back     int `json:"came_back"`
	PeakBack int `json:"peak_came_back_per_second"`
	// Calm and Rolling are the calls of the history service per second, by operation, before and during the roll.
	Calm    map[string]float64 `json:"history_calls_calm"`
	Rolling map[string]float64 `json:"history_calls_rolling"`
	Repeats uint64             `json:"events_repeated"`
}

// drainRate is the configured drain rate of the gateways: 5,000 clients within ten seconds.
func (c RollConfig) drainRate() int { return max(100, c.Clients/10) }

// rolling is a run whose only fault is a roll.
type rolling struct {
	*run
	cfg   RollConfig
	crowd *crowd
}

// Roll replaces all gateways one after another while clients are connected, messages are sent, an operator erases, and
// readers of the feed restart. Nothing may be lost or doubled, and the clients that are sent away must come back at the
// configured rate.
func Roll(ctx context.Context, cfg RollConfig, out io.Writer) (*Report, error) {
	if err := allowFiles(uint64(cfg.Clients) + 2000); err != nil {
		return nil, err
	}
	r := &rolling{cfg: cfg, run: &run{
		Config: Config{Name: "roll", Dir: cfg.Dir, Binaries: cfg.Binaries, Next: cfg.Next, Store: launch.PostgreSQL, NATSNodes: 1, Seed: cfg.Seed, Plan: "roll"},
		out:    out, begun: time.Now(), random: rand.New(rand.NewPCG(cfg.Seed, 1)), record: NewRecord(),
		report: &Report{Name: "roll", Seed: cfg.Seed, Store: string(launch.PostgreSQL), NATSNodes: 1, Plan: "roll", Dir: cfg.Dir},
	}}
	starting, cancel := context.WithTimeout(ctx, setup)
	defer cancel()
	suite, err := launch.Start(starting, launch.Options{
		Dir: cfg.Dir, Binaries: cfg.Binaries, Store: launch.PostgreSQL, Gateways: cfg.Gateways, Histories: 2,
		Flags: map[string][]string{launch.Gateway: {
			"--gateway.max-connections-per-ip=1000000", "--gateway.connect-rate-per-ip=1000000", "--gateway.command-rate-per-user=1000", "--gateway.add-rate-per-user=100000", "--gateway.read-rate-per-user=100000",
			fmt.Sprintf("--gateway.drain-rate=%d", cfg.drainRate()),
		}},
		Crashed: func(name string, err error) { r.record.Violated(violation("crash", "%s: %v", name, err)) },
	})
	if err != nil {
		return nil, err
	}
	defer suite.Kill()
	r.suite, r.database = suite, OpenDatabase(suite.Database)
	defer r.database.Close()
	r.mix()
	if err := r.database.WatchWatermarks(starting); err != nil {
		return nil, err
	}
	r.witness = NewWitness(r.database, r.record)
	if err := r.carryOut(ctx); err != nil {
		return nil, err
	}
	r.report.finish(r.record.Violations(), r.record.History(), time.Since(r.begun))
	return r.report, nil
}

// carryOut carries out the roll, between start and verdict.
func (r *rolling) carryOut(ctx context.Context) (err error) {
	r.warm(ctx)
	life, end := context.WithCancel(ctx)
	defer end()
	var watching sync.WaitGroup
	watching.Go(func() { r.witness.Run(context.WithoutCancel(life)) })
	r.crowd, err = newCrowd(r.suite, r.cfg.Seed)
	if err == nil {
		err = r.perform(life)
		r.crowd.close()
		r.report.Roll = r.crowd.report(r.cfg, r.report.Roll)
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
	r.witness.Finish()
	watching.Wait()
	r.report.Looks, r.report.LateLooks = r.witness.Looks()
	r.report.Versions = r.versions.summary()
	if err != nil || ctx.Err() != nil {
		return err
	}
	r.report.Resumed = r.resumed() + r.report.Roll.Back
	return r.conclude(ctx)
}

// perform connects the clients, rolls the gateways, and waits until all clients have all events.
func (r *rolling) perform(ctx context.Context) error {
	gathering, cancel := context.WithTimeout(ctx, rollSetup)
	defer cancel()
	if err := r.gather(gathering); err != nil {
		return err
	}
	if err := r.crowd.connect(gathering); err != nil {
		return err
	}
	r.sayf("%d clients are connected to %d gateways, in %d groups", r.cfg.Clients, r.cfg.Gateways, len(r.crowd.conversations))
	if err := r.operators(); err != nil {
		return err
	}
	defer r.feed.close()
	defer r.eraser.close()
	reading, leave := context.WithCancel(ctx)
	defer leave()
	readers := r.readFeeds(reading)
	writing, stop := context.WithCancel(ctx)
	defer stop()
	var load sync.WaitGroup
	load.Go(func() { r.eraser.run(writing, rand.New(rand.NewPCG(r.Seed, 2001)), r.devices) })
	for n, d := range r.devices {
		load.Go(func() { r.write(writing, d, r.crowd.conversations, n) })
	}
	report := &RollReport{}
	r.report.Roll = report
	reads := r.reads(ctx)
	begun := time.Now()
	_ = launch.Sleep(ctx, rollCalm)
	report.Calm, reads = r.rate(ctx, reads, begun)
	begun = time.Now()
	err := r.roll(ctx)
	report.Seconds = seconds(time.Since(begun))
	report.Rolling, _ = r.rate(ctx, reads, begun)
	_ = launch.Sleep(ctx, 2*awayDelay)
	stop()
	load.Wait()
	if err != nil || ctx.Err() != nil {
		leave()
		readers.Wait()
		return err
	}
	r.settle(ctx)
	r.crowd.settle(ctx, r.run)
	leave()
	readers.Wait()
	r.feed.catchUp(ctx, partitions)
	return nil
}

// gather opens the senders, which make groups of listeners.
func (r *rolling) gather(ctx context.Context) error {
	r.dialer = newDialer(r.suite.URLs, r.Seed, nil)
	shared := &world{record: r.record, witness: r.witness, dialer: r.dialer, token: r.suite.Token}
	for n := range rollSenders {
		// Not bound to ctx, which is only for gathering: the devices live until they are closed.
		if _, err := r.device(context.WithoutCancel(ctx), shared, Reader{fmt.Sprintf("sender%d", n), "device0"}, frame.Proto); err != nil {
			return err
		}
	}
	for first := 0; first < r.cfg.Clients; first += rollGroup {
		var members []string
		for n := first; n < min(first+rollGroup, r.cfg.Clients); n++ {
			members = append(members, fmt.Sprintf("listener%d", n))
		}
		// Several groups are made at a time, by the senders in turn.
		id, err := r.make(ctx, r.devices[first/rollGroup%rollSenders], group("group of "+members[0], members...))
		if err != nil {
			return err
		}
		for _, user := range members {
			token, err := r.suite.Token(user)
			if err != nil {
				return err
			}
			r.crowd.add(load.NewClient(user, token, id, false))
		}
	}
	return nil
}

// write makes one sender write to its groups in turn until ctx ends.
func (r *rolling) write(ctx context.Context, d *device, groups []string, sender int) {
	var own []string
	for n, id := range groups {
		if n%rollSenders == sender {
			own = append(own, id)
		}
	}
	const each = rollSenders * time.Second / rollRate
	for n := 0; len(own) > 0 && launch.Sleep(ctx, each/2+rand.N(each)) == nil; n++ {
		d.mu.Lock()
		busy := len(d.pending) >= maxPending
		d.mu.Unlock()
		if busy {
			continue
		}
		if _, err := d.send(own[n%len(own)], message(fmt.Sprintf("%s/%d %s", d.reader, n, strings.Repeat("x", 100)))); err != nil {
			r.record.Violated(violation("client", "%s: %v", d.reader, err))
			return
		}
	}
}

// roll replaces the gateways.
func (r *rolling) roll(ctx context.Context) error {
	for n, p := range r.suite.Gateways {
		r.crowd.leave(n)
		begun := time.Now()
		if err := p.Stop(); err != nil {
			r.record.Violated(violation("clean stop", "%v", err))
		}
		drained := time.Since(begun)
		restart, cancel := context.WithTimeout(ctx, restarting)
		err := r.versions.restart(restart, p)
		cancel()
		if err != nil {
			return err
		}
		r.crowd.enter(n)
		r.record.Fault("roll gateway", begun, time.Now())
		r.sayf("%s drained in %v and was replaced; %d clients are connected", p.Name(), drained.Round(time.Millisecond), r.crowd.connected())
	}
	return nil
}

// operationOf matches the operation in the name of a metric that counts calls of the history service.
var operationOf = regexp.MustCompile(`^runnel_history_operation_seconds_count\{.*operation="([a-z_]+)"`)

// reads returns the number of calls of the history service by operation.
func (r *rolling) reads(ctx context.Context) map[string]float64 {
	calls := map[string]float64{}
	for _, p := range r.suite.Histories {
		metrics, _ := p.Metrics(ctx)
		for name, value := range metrics {
			if found := operationOf.FindStringSubmatch(name); found != nil {
				calls[found[1]] += value
			}
		}
	}
	return calls
}

// rate returns the calls per second since begun, and the present counts for the next call.
func (r *rolling) rate(ctx context.Context, before map[string]float64, begun time.Time) (perSecond, now map[string]float64) {
	now, perSecond = r.reads(ctx), map[string]float64{}
	for operation, calls := range now {
		if rise := calls - before[operation]; rise > 0 {
			perSecond[operation] = rise / time.Since(begun).Seconds()
		}
	}
	return perSecond, now
}

// allowFiles raises the limit of open files, for this process and the processes that it starts.
func allowFiles(need uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the bound of open files: %w", err)
	}
	if limit.Cur >= need {
		return nil
	}
	raised := syscall.Rlimit{Cur: need, Max: max(limit.Max, need)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("%w: %d open files are needed and %d allowed: raise ulimit -n (%w)", ErrSkipped, need, limit.Max, err)
	}
	return nil
}
