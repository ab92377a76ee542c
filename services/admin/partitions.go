package admin

import (
	"context"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
)

const (
	// moveTimeout is the time limit of a handover. movePoll is the interval at which the store is polled meanwhile.
	moveTimeout = 10 * time.Second
	movePoll    = 25 * time.Millisecond

	// States of a partition. A further state is "stopped: " and the reason.
	stateRunning, stateStarting, stateNoOwner, stateUnknown = "running", "starting", "no owner", "unknown"
)

// GetStatus returns the live instances.
func (s *Server) GetStatus(ctx context.Context, _ *adminv1.GetStatusRequest) (*adminv1.GetStatusResponse, error) {
	gateways, missing, err := askAll[gatewayv1.GetGatewayResponse](ctx, s, serviceGateway, "GetGateway", &gatewayv1.GetGatewayRequest{})
	if err != nil {
		return nil, err
	}
	partitions, err := s.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	letters, err := s.History.ListDeadLetters(ctx, &historyv1.ListDeadLettersRequest{Limit: rpc.MaxItems})
	if err != nil {
		return nil, err
	}
	response := &adminv1.GetStatusResponse{
		Workers: partitions.GetWorkers(), Partitions: partitions.GetPartitions(), Missing: append(missing, partitions.GetMissing()...),
		DeadLetters: uint32(len(letters.GetDeadLetters())), WorkerVersions: map[string]string{},
	}
	for _, member := range s.Fleet.Members(serviceDelivery) {
		if member.Version != "" {
			response.WorkerVersions[member.Instance] = member.Version
		}
	}
	for _, gateway := range gateways {
		response.Gateways = append(response.Gateways, gateway.said)
	}
	return response, nil
}

// ListPartitions lists every partition with its owner and lag. The owner comes from the store, the state from that
// worker.
func (s *Server) ListPartitions(ctx context.Context, _ *adminv1.ListPartitionsRequest) (*adminv1.ListPartitionsResponse, error) {
	workers, missing, err := askAll[deliveryv1.ListPartitionsResponse](ctx, s, serviceDelivery, "ListPartitions", &deliveryv1.ListPartitionsRequest{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	leases, err := s.History.ListLeases(ctx, &historyv1.ListLeasesRequest{})
	if err != nil {
		return nil, err
	}
	return overview(s.Partitions, leases, workers, missing), nil
}

// overview combines the data of the store and of the workers about the partitions.
func overview(partitions int, leases *historyv1.ListLeasesResponse, workers []from[deliveryv1.ListPartitionsResponse], missing []*adminv1.Missing) *adminv1.ListPartitionsResponse {
	response := &adminv1.ListPartitionsResponse{Workers: leases.GetWorkers(), Missing: missing}
	said := map[string]*deliveryv1.ListPartitionsResponse{}
	for _, worker := range workers {
		said[worker.instance] = worker.said
	}
	for _, worker := range leases.GetWorkers() {
		known := said[worker.GetWorker()] != nil || slices.ContainsFunc(missing, func(m *adminv1.Missing) bool { return m.GetInstance() == worker.GetWorker() })
		if !known {
			response.Missing = append(response.Missing, &adminv1.Missing{
				Instance: worker.GetWorker(), Service: serviceDelivery, Reason: "renews its leases in the store, but is not reachable over NATS",
			})
		}
	}
	for number := range ids.Partition(partitions) {
		p := &adminv1.Partition{Partition: uint32(number), Owner: ownerOf(leases, number), State: stateNoOwner}
		if lease := leaseOf(leases, number); lease != nil {
			p.Wanted, p.Watermark = lease.GetWanted(), lease.GetWatermark().GetSequence()
		}
		if p.GetOwner() != "" {
			p.State = stateUnknown
		}
		if owner := said[p.GetOwner()]; owner != nil {
			// The worker has the lease and has not started yet. If it reports another state, that state is used.
			p.State = stateStarting
			for _, mine := range owner.GetPartitions() {
				if ids.Partition(mine.GetPartition()) == number {
					p.State, p.StreamLast = mine.GetState(), mine.GetStreamLast()
				}
			}
		}
		p.Lag = max(p.GetStreamLast(), p.GetWatermark()) - p.GetWatermark()
		response.Partitions = append(response.Partitions, p)
	}
	slices.SortFunc(response.GetMissing(), func(a, b *adminv1.Missing) int { return strings.Compare(a.GetInstance(), b.GetInstance()) })
	return response
}

func leaseOf(leases *historyv1.ListLeasesResponse, partition ids.Partition) *historyv1.PartitionLease {
	for _, lease := range leases.GetLeases() {
		if ids.Partition(lease.GetPartition()) == partition {
			return lease
		}
	}
	return nil
}

// ownerOf returns the worker with a valid lease of a partition; empty if there is none.
func ownerOf(leases *historyv1.ListLeasesResponse, partition ids.Partition) string {
	if lease := leaseOf(leases, partition); lease.GetLiveForMs() > 0 {
		return lease.GetWorker()
	}
	return ""
}

// MovePartition moves a partition to another worker. It stores the request and wakes all workers, so that they read it at
// once. Then it waits for the handover.
func (s *Server) MovePartition(ctx context.Context, request *adminv1.MovePartitionRequest) (*adminv1.MovePartitionResponse, error) {
	partition, worker := ids.Partition(request.GetPartition()), request.GetWorker()
	if partition >= ids.Partition(s.Partitions) {
		return nil, invalid("partition: there is no such partition")
	}
	ctx, cancel := gather(ctx, moveTimeout)
	defer cancel()
	if _, err := s.History.MovePartition(ctx, &historyv1.MovePartitionRequest{Partition: uint32(partition), Worker: worker}); err != nil {
		return nil, err
	}
	s.notify(ctx, broker.ReleasedSubject, nil)
	moved, err := s.awaitOwner(ctx, partition, worker)
	s.acted(ctx, "move", "partition", partition, "worker", worker, "moved", moved)
	if err != nil {
		return nil, err
	}
	return &adminv1.MovePartitionResponse{Moved: moved}, nil
}

// awaitOwner waits until a worker owns a partition; an empty name means any worker. It returns false if ctx ends first.
func (s *Server) awaitOwner(ctx context.Context, partition ids.Partition, worker string) (bool, error) {
	ticker := time.NewTicker(movePoll)
	defer ticker.Stop()
	for {
		leases, err := s.History.ListLeases(ctx, &historyv1.ListLeasesRequest{})
		switch owner := ownerOf(leases, partition); {
		case ctx.Err() != nil:
			return false, nil
		case err != nil:
			return false, err
		case owner == worker || (worker == "" && owner != ""):
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-ticker.C:
		}
	}
}
