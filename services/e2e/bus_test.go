package e2e_test

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/bus/bustest"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/gateway"
)

// Whatever a bus loses, repeats or delays, every command is committed once and every client receives all events in order.
func TestABusMayLoseRepeatAndReorder(t *testing.T) {
	const seed, users, messages = 11, 3, 30
	inner, err := bus.NewInProcess(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	faulty := bustest.NewFaulty(inner, seed)
	t.Logf("seed %d", seed)
	faulty.Lose, faulty.Repeat, faulty.Delay = 0.05, 0.1, 0.1
	s := newStageWith(t, func(cfg *gateway.Config) { cfg.Heartbeat = time.Second }, func(d *gateway.Deps) { d.Bus = faulty })
	worker, err := delivery.New(delivery.Config{FlushInterval: 10 * time.Millisecond}, delivery.Deps{
		NATS: s.nc, Bus: faulty, History: s.history,
		Broker: broker.Config{Partitions: 1, Replicas: 1, MaxBytes: 64 << 20, MaxAge: time.Hour, DuplicateWindow: time.Minute},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-done)
	}()

	names := []string{"ann", "bob", "cem"}
	var programs []*program
	for _, name := range names {
		programs = append(programs, open(t, s.url(), name, frame.Proto, nil))
	}
	deadline, stop := context.WithTimeout(t.Context(), 2*patience)
	defer stop()
	outcome, err := programs[0].Submit(deadline, "", group(names[1:]...))
	require.NoError(t, err)
	id := outcome.GetConversationId()
	for _, p := range programs[1:] {
		require.EqualValues(t, 1, p.next().GetSeq())
	}
	var sending sync.WaitGroup
	for _, p := range programs {
		for i := range messages {
			sending.Go(func() {
				if _, err := p.Submit(deadline, id, text(strconv.Itoa(i))); err != nil {
					t.Error(err)
				}
			})
		}
	}
	sending.Wait()
	programs[0].next()
	for _, p := range programs {
		require.Len(t, p.upTo(1+users*messages), users*messages)
	}
	require.Positive(t, faulty.Faults())
	t.Logf("%d faults", faulty.Faults())
}
