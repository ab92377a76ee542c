package torture

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// Cost is the resource use of all processes of one service, according to their metrics.
type Cost struct {
	Goroutines float64 `json:"goroutines"`
	RSS        float64 `json:"rss_bytes"`
	// Connections and Rooms are only for gateways.
	Connections float64 `json:"connections,omitempty"`
	Rooms       float64 `json:"rooms,omitempty"`
}

// Costs contains the costs of a service before it had clients and after they left.
type Costs struct {
	Service string `json:"service"`
	Before  Cost   `json:"before"`
	After   Cost   `json:"after"`
}

const (
	// slack is the number of goroutines that a process may have in addition to those before it had clients.
	slack = 25
	// growth is the additional memory that a process may use: a gateway keeps up to 64 MiB of recent events, and Go
	// returns freed memory slowly.
	growth = 192 << 20
)

// services returns the processes that are checked for leaks, by kind.
func (r *run) services() map[string][]*launch.Process {
	return map[string][]*launch.Process{"gateway": r.suite.Gateways, "delivery": r.suite.Deliveries, "history": r.suite.Histories}
}

// look reads the cost of a service, and whether it is idle: no connections and no rooms, and every partition owned.
func look(ctx context.Context, service string, processes []*launch.Process) (cost Cost, atRest bool, err error) {
	working := 0
	for _, p := range processes {
		metrics, err := p.Metrics(ctx)
		if err != nil {
			return cost, false, err
		}
		cost.Goroutines += metrics["go_goroutines"]
		cost.RSS += metrics["process_resident_memory_bytes"]
		cost.Connections += metrics["runnel_gateway_connections"]
		cost.Rooms += metrics["runnel_gateway_rooms"]
		if service == "delivery" {
			running, err := atWork(ctx, p)
			if err != nil {
				return cost, false, err
			}
			working += running
		}
	}
	return cost, cost.Connections == 0 && cost.Rooms == 0 && (service != "delivery" || working == partitions), nil
}

// atWork returns the number of partitions that a worker reads.
func atWork(ctx context.Context, worker *launch.Process) (running int, err error) {
	conn, err := grpc.NewClient("passthrough:///"+worker.Flag("rpc.listen"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, fmt.Errorf("reach %s: %w", worker.Name(), err)
	}
	defer conn.Close()
	list, err := deliveryv1.NewDeliveryServiceClient(conn).ListPartitions(ctx, &deliveryv1.ListPartitionsRequest{})
	for _, p := range list.GetPartitions() {
		if p.GetState() == "running" {
			running++
		}
	}
	return running, err
}

// warm records the costs before there are clients.
func (r *run) warm(ctx context.Context) {
	for service, processes := range r.services() {
		var before Cost
		ready := until(ctx, func() bool {
			cost, atRest, err := look(ctx, service, processes)
			before = cost
			return err == nil && atRest
		})
		if !ready {
			r.record.Violated(violation("I9", "the %s processes did not come to rest before anybody used them", service))
		}
		r.report.Costs = append(r.report.Costs, Costs{Service: service, Before: before})
	}
}

// cool checks I10: without clients, services have no connections and no rooms, and about as many goroutines and as much
// memory as before.
func (r *run) cool(ctx context.Context) {
	for i := range r.report.Costs {
		costs := &r.report.Costs[i]
		processes := r.services()[costs.Service]
		each := float64(len(processes))
		var atRest bool
		var err error
		cooled := until(ctx, func() bool {
			costs.After, atRest, err = look(ctx, costs.Service, processes)
			return err == nil && atRest && costs.After.Goroutines <= costs.Before.Goroutines+slack*each && costs.After.RSS <= costs.Before.RSS+growth*each
		})
		if !cooled {
			r.record.Violated(violation("I10", "the %s processes without clients: at rest %v, %v connections, %v rooms, %v goroutines and %.0f MiB (before %v and %.0f MiB; %v)",
				costs.Service, atRest, costs.After.Connections, costs.After.Rooms, costs.After.Goroutines, costs.After.RSS/(1<<20), costs.Before.Goroutines, costs.Before.RSS/(1<<20), err))
			for _, p := range processes {
				r.keepProfile(ctx, p)
			}
		}
	}
}

// keepProfile writes the goroutines of a process to a file next to its log.
func (r *run) keepProfile(ctx context.Context, p *launch.Process) {
	profile, err := p.Profile(ctx, "goroutine")
	if err == nil {
		err = os.WriteFile(filepath.Join(r.Dir, p.Name()+".goroutines"), profile, 0o600)
	}
	if err != nil {
		r.sayf("the goroutines of %s are not known: %v", p.Name(), err)
	}
}

// until polls a condition until it holds, for a generous time.
func until(ctx context.Context, is func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, live)
	defer cancel()
	for !is() {
		if launch.Sleep(ctx, 50*time.Millisecond) != nil {
			return false
		}
	}
	return true
}
