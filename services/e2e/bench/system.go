package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// The modes.
const (
	standalone = "standalone"
	separate   = "separate"
)

// system is a running Runnel.
type system struct {
	*launch.Suite
	gateways []string // host:port
	calls    *grpc.ClientConn
	delivery deliveryv1.DeliveryServiceClient
	crowds   int // number of crowds so far; no user is in two crowds
}

// limits are flags of the programs that serve clients. They raise limits, because all clients of a load come from one
// address and send faster than people.
var limits = []string{
	"--gateway.max-connections-per-ip=1000000", "--gateway.connect-rate-per-ip=1000000",
	"--gateway.frame-rate=1000000", "--gateway.command-rate-per-user=1000000", "--gateway.add-rate-per-user=1000000", "--gateway.read-rate-per-user=1000000", "--gateway.max-conversations-per-user=0",
}

// Limits returns the flags that raise the limits of the programs that serve clients.
func Limits() []string { return slices.Clone(limits) }

// programs returns the programs that a mode needs.
func programs(mode string) []string {
	if mode == standalone {
		return []string{launch.Standalone}
	}
	return []string{launch.Gateway, launch.Delivery, launch.History, launch.NATSServer}
}

// start starts a system with its data in dir. copies is the number of gateways and workers if the services are separate.
// All services get the extra flags.
func start(ctx context.Context, mode string, b *build, dir string, copies int, profile bool, extra []string) (*system, error) {
	if profile {
		extra = append(slices.Clone(extra), "--admin.pprof")
	}
	options := launch.Options{
		Dir: dir, Binaries: b.binaries, Store: launch.PostgreSQL, NATSNodes: 1, Gateways: copies, Deliveries: copies, Histories: 1,
		Flags: b.flagsWith(extra), Environment: b.environment,
	}
	begin, workers := launch.Start, func(s *launch.Suite) []*launch.Process { return s.Deliveries }
	if mode == standalone {
		begin, workers = launch.StartStandalone, func(s *launch.Suite) []*launch.Process { return []*launch.Process{s.Standalone} }
	}
	suite, err := begin(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", mode, err)
	}
	s := &system{Suite: suite}
	for _, url := range suite.URLs {
		host, _, _ := strings.Cut(strings.TrimPrefix(url, "ws://"), "/")
		s.gateways = append(s.gateways, host)
	}
	if s.calls, err = dial(workers(suite)[0]); err != nil {
		return nil, errors.Join(err, suite.Stop())
	}
	s.delivery = deliveryv1.NewDeliveryServiceClient(s.calls)
	return s, nil
}

// dial makes a gRPC connection to a process.
func dial(p *launch.Process) (*grpc.ClientConn, error) {
	calls, err := grpc.NewClient("passthrough:///"+flagOf(p, "rpc.listen"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", p.Name(), err)
	}
	return calls, nil
}

// flagOf returns the value of a flag with which a process was started.
func flagOf(p *launch.Process, flag string) string {
	for _, arg := range p.Args {
		if value, found := strings.CutPrefix(arg, "--"+flag+"="); found {
			return value
		}
	}
	return ""
}

func (s *system) close() error {
	return errors.Join(s.calls.Close(), s.Stop())
}

// services returns Runnel's own processes, in the order of their start.
func (s *system) services() []*launch.Process {
	if s.Standalone != nil {
		return []*launch.Process{s.Standalone}
	}
	return slices.Concat(s.Histories, s.Deliveries, s.Gateways)
}

// front returns the processes to which clients connect.
func (s *system) front() []*launch.Process {
	if s.Standalone != nil {
		return []*launch.Process{s.Standalone}
	}
	return s.Gateways
}

// restart restarts the services, so that their memory is as after a fresh start.
func (s *system) restart(ctx context.Context) error {
	services := s.services()
	for _, p := range slices.Backward(services) {
		if err := p.Stop(); err != nil {
			return fmt.Errorf("stop %s: %w", p.Name(), err)
		}
	}
	for _, p := range services {
		if err := p.Restart(ctx); err != nil {
			return err
		}
	}
	return nil
}

// memory returns the RSS of all processes except the database.
func (s *system) memory() int64 {
	var parts []launch.Part
	for _, part := range s.Parts() {
		if part.Name() != "postgres" {
			parts = append(parts, part)
		}
	}
	return launch.Total(parts...).RSS
}

// awaitNobody waits until no client is connected.
func (s *system) awaitNobody(ctx context.Context) error {
	for {
		var connections float64
		for _, p := range s.front() {
			metrics, err := p.Metrics(ctx)
			if err != nil {
				return err
			}
			connections += metrics["runnel_gateway_connections"]
		}
		if connections == 0 {
			return nil
		}
		if err := launch.Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%v connections are left: %w", connections, err)
		}
	}
}

// createGroup creates group g. The first user is its owner.
func (s *system) createGroup(ctx context.Context, g int, users []string) (conversation string, seq uint64, err error) {
	conversation, seq, err = s.submit(ctx, &deliveryv1.SubmitRequest{Sender: users[0], Body: &conversationv1.Body{
		Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Name: fmt.Sprintf("group %d", g), Members: users[1:],
		}},
	}})
	if err != nil {
		return "", 0, fmt.Errorf("create group %d: %w", g, err)
	}
	return conversation, seq, nil
}

// submit sends a command like an internal service and waits until it is committed. It returns the conversation and the
// seq.
func (s *system) submit(ctx context.Context, request *deliveryv1.SubmitRequest) (conversation string, seq uint64, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", 0, fmt.Errorf("make a command id: %w", err)
	}
	request.CommandId = id.String()
	for {
		response, err := s.delivery.Submit(ctx, request)
		switch {
		case status.Code(err) == codes.Unavailable && launch.Sleep(ctx, 50*time.Millisecond) == nil:
			continue // retry with the same id
		case err != nil:
			return "", 0, fmt.Errorf("submit a command: %w", err)
		case response.GetOutcome().GetError() != nil:
			return "", 0, fmt.Errorf("submit a command: refused: %s", response.GetOutcome().GetError().GetMessage())
		}
		return response.GetOutcome().GetConversationId(), response.GetOutcome().GetSeq(), nil
	}
}

// write sends messages of a user one after another, and returns the seq of the last one.
func (s *system) write(ctx context.Context, sender, conversation string, messages int) (seq uint64, err error) {
	text := strings.Repeat("0123456789abcdef", 8)
	for range messages {
		_, seq, err = s.submit(ctx, &deliveryv1.SubmitRequest{Sender: sender, ConversationId: conversation, Body: &conversationv1.Body{
			Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}},
		}})
		if err != nil {
			return 0, err
		}
	}
	return seq, nil
}

// cost is the use of resources during one measurement.
type cost struct {
	elapsed time.Duration
	cpu     time.Duration // CPU time of all server processes and their database
	load    time.Duration // CPU of the load generator
	others  time.Duration // CPU time of all other programs on the machine, which makes figures doubtful
}

// micros returns the servers' CPU time per operation, for n operations.
func (c cost) micros(n float64) float64 { return float64(c.cpu.Nanoseconds()) / 1e3 / n }

// rate returns n per second.
func (c cost) rate(n float64) float64 { return n / c.elapsed.Seconds() }

// measure returns the cost of the system while the function during runs.
func (s *system) measure(ctx context.Context, during func(context.Context) error) (cost, error) {
	parts := s.Parts()
	begun, machine, before, self := time.Now(), machineCPU(), launch.Total(parts...), ownCPU()
	err := during(ctx)
	spent := cost{elapsed: time.Since(begun), cpu: launch.Total(parts...).CPU - before.CPU, load: ownCPU() - self}
	spent.others = max(0, machineCPU()-machine-spent.cpu-spent.load)
	return spent, err
}

// machineCPU returns the time that all processors together were busy, including time taken by other virtual machines.
func machineCPU() time.Duration {
	fields := strings.Fields(firstLine("/proc/stat")) // cpu user nice system idle iowait irq softirq steal …
	const idle, iowait, last = 4, 5, 8
	var ticks int64
	for i := 1; i <= last && i < len(fields); i++ {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err == nil && i != idle && i != iowait {
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// ownCPU returns the CPU time that this process has used.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// profile writes, for every service, a CPU profile over the duration d. It also writes the allocations since the
// service's start, and the changes of its metrics during d.
func (s *system) profile(ctx context.Context, dir, name string, d time.Duration) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory for profiles: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range s.services() {
		group.Go(func() error {
			admin := strings.TrimSuffix(p.Ready, "/readyz") + "/debug/pprof/"
			file := filepath.Join(dir, name+"."+p.Name())
			before, err := p.Metrics(ctx)
			if err != nil {
				return err
			}
			if err := download(ctx, fmt.Sprintf("%sprofile?seconds=%d", admin, max(1, int(d.Seconds()))), file+".cpu"); err != nil {
				return err
			}
			after, err := p.Metrics(ctx)
			if err != nil {
				return err
			}
			if err := download(ctx, admin+"allocs", file+".allocs"); err != nil {
				return err
			}
			return os.WriteFile(file+".metrics", rises(before, after), 0o644)
		})
	}
	return group.Wait()
}

// rises lists the changes of metrics, and their final values.
func rises(before, after map[string]float64) []byte {
	var list []byte
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if rise := after[name] - before[name]; rise != 0 && !strings.Contains(name, "_bucket{") {
			list = fmt.Appendf(list, "%-90s %+16.6g %16.6g\n", name, rise, after[name])
		}
	}
	return list
}

func download(ctx context.Context, url, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("fetch a profile: %w", err)
	}
	defer response.Body.Close()
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("keep a profile: %w", err)
	}
	_, err = file.ReadFrom(response.Body)
	return errors.Join(err, file.Close())
}
