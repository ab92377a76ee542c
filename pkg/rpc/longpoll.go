package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// longPoll is a request that the service may leave unanswered for the time in the request, until it has something to
// return. Every request whose field wait_ms is set is a long poll.
type longPoll interface{ GetWaitMs() uint32 }

// waitOf returns how long the service may leave a request unanswered; 0 if the request is not a long poll.
func waitOf(request any) time.Duration {
	if poll, ok := request.(longPoll); ok {
		return time.Duration(poll.GetWaitMs()) * time.Millisecond
	}
	return 0
}

// poll makes a long poll. It uses the bulkhead of its method, but not the circuit: after a failure the circuit admits
// only one call, and all other calls would wait until that long poll returns. There are few pollers, and they pause after
// an error.
func (b *breaker) poll(ctx context.Context, g *gate, wait time.Duration, invoke func(context.Context) error) error {
	if !g.bulkhead.enter(ctx) {
		return b.notEntered(ctx)
	}
	defer g.bulkhead.leave()
	ctx, cancel := b.limit(ctx, wait)
	defer cancel()
	return invoke(ctx)
}

// errStopping is the answer to a long poll when the server stops.
var errStopping = status.Error(codes.Unavailable, "the service is being stopped; try again")

// polls ends long polls when the server stops, because they would delay the stop.
type polls struct {
	stopping context.Context //nolint:containedctx // ends when the server begins to stop, which the contexts of calls do not show
	stop     context.CancelFunc
}

func newPolls() *polls {
	p := &polls{}
	p.stopping, p.stop = context.WithCancel(context.Background())
	return p
}

func (p *polls) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if waitOf(request) == 0 {
		return handle(ctx, request)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.stopping, cancel)()
	response, err := handle(ctx, request)
	if err != nil && p.stopping.Err() != nil {
		return nil, errStopping
	}
	return response, err
}
