package shards

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Router is a client of several history services, each of which has the partitions p with p mod n = its index. It is safe for
// concurrent use.
type Router struct {
	clients    []historyv1.HistoryServiceClient
	partitions int
}

var _ historyv1.HistoryServiceClient = (*Router)(nil)

// ErrShards means that the number of history services does not fit the number of partitions.
var ErrShards = errors.New("there must be 1 history service or more, and at most one for each partition")

// New makes a router over the history services of an installation. Their order and number must be the same in every process, and
// never change.
func New(partitions int, clients ...historyv1.HistoryServiceClient) (*Router, error) {
	if len(clients) == 0 || len(clients) > partitions {
		return nil, ErrShards
	}
	return &Router{clients: clients, partitions: partitions}, nil
}

// shardOf returns the index of the service that has a partition.
func (r *Router) shardOf(partition ids.Partition) int { return int(partition) % len(r.clients) }

func (r *Router) shardOfConversation(id string) int {
	return r.shardOf(conversation.Partition(ids.Conversation(id), r.partitions))
}

// of returns the client of a partition.
func (r *Router) of(partition uint32) historyv1.HistoryServiceClient {
	return r.clients[r.shardOf(ids.Partition(partition))]
}

// ofConversation returns the client of a conversation.
func (r *Router) ofConversation(id string) historyv1.HistoryServiceClient {
	return r.clients[r.shardOfConversation(id)]
}

// home returns the client of the shard that keeps what belongs to no partition.
func (r *Router) home() historyv1.HistoryServiceClient { return r.clients[0] }

// all calls every shard at the same time, and returns the answers by shard. The first error cancels the other calls.
func all[A any](ctx context.Context, r *Router, call func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (A, error)) ([]A, error) {
	every := make([]int, len(r.clients))
	for i := range every {
		every[i] = i
	}
	return some(ctx, r, every, call)
}

// some is all for some shards. The answers are in the order of shards.
func some[A any](
	ctx context.Context, r *Router, shards []int, call func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (A, error),
) ([]A, error) {
	answers := make([]A, len(shards))
	calls, ctx := errgroup.WithContext(ctx)
	for i, shard := range shards {
		calls.Go(func() (err error) {
			answers[i], err = call(ctx, shard, r.clients[shard])
			return err //nolint:wrapcheck // a status that callers distinguish
		})
	}
	if err := calls.Wait(); err != nil {
		return nil, err //nolint:wrapcheck // likewise
	}
	return answers, nil
}

// divide divides items among the shards of their conversations. It returns the shards that have any, in rising order.
func divide[T any](r *Router, items []T, conversationOf func(T) string) (shards []int, byShard map[int][]T) {
	byShard = map[int][]T{}
	for _, item := range items {
		shard := r.shardOfConversation(conversationOf(item))
		byShard[shard] = append(byShard[shard], item)
	}
	for shard := range r.clients {
		if len(byShard[shard]) > 0 {
			shards = append(shards, shard)
		}
	}
	if len(shards) == 0 { // a shard judges an empty request
		shards = []int{0}
	}
	return shards, byShard
}

// disagreement is a setting that is not the same in all shards.
func disagreement(what string, first, other uint32, shard int) error {
	return fmt.Errorf("the history services are not of one installation: the first has %s %d, number %d has %d", what, first, shard+1, other)
}
