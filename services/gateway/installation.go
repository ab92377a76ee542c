package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/telemetry"

	"github.com/runnelhq/runnel/services/gateway/backoff"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// ErrMismatch means that this gateway cannot serve the installation: its build is older than the installation's protocol level
// requires, or its number of partitions differs.
var ErrMismatch = errors.New("this gateway does not fit the installation")

// levelInterval is the approximate interval at which the installation's level is read. A level raised by an operator
// takes effect within this time.
const levelInterval = 5 * time.Second

// installation holds the settings that all parts of the installation must agree on, as this gateway knows them.
type installation struct {
	history interface {
		GetInstallation(ctx context.Context, request *historyv1.GetInstallationRequest, options ...grpc.CallOption) (*historyv1.GetInstallationResponse, error)
	}
	partitions int
	timeout    time.Duration // time limit of one call of the history service
	metrics    *metrics.Metrics
	log        *slog.Logger

	known atomic.Uint32 // the value that level returns
}

// level is the installation's protocol level as this gateway knows it; 0 before the store has answered. It never falls.
func (i *installation) level() conversation.Level { return conversation.Level(i.known.Load()) }

// check reports whether the store is available. Until this gateway knows the installation's level, it refuses clients and
// is not ready. Later an outage of the store makes the gateway degraded, not unready: it keeps its connections and
// accepts new ones. An outage affects all gateways at once; if all were unready, no client could connect. Live messages
// resume when the store is available again.
func (i *installation) check(ctx context.Context) error {
	_, err := i.history.GetInstallation(ctx, &historyv1.GetInstallationRequest{}) // this call reads a row; Heads with an empty list would read nothing
	switch {
	case i.level() != 0:
		return telemetry.Degraded(err)
	case err != nil:
		return err
	default:
		return errors.New("the installation's protocol level is not known yet")
	}
}

// agree reads from the store the settings that all parts of the installation must agree on. The error wraps ErrMismatch if this
// gateway must never serve clients.
func (i *installation) agree(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	i.metrics.Reads[metrics.ReadInstallation].Inc()
	answer, err := i.history.GetInstallation(ctx, &historyv1.GetInstallationRequest{})
	if err != nil {
		return fmt.Errorf("read the installation's settings from the history service: %w", err)
	}
	if err := checkInstallation(answer, i.partitions); err != nil {
		return err
	}
	for {
		known := i.known.Load()
		if answer.GetLevel() <= known || i.known.CompareAndSwap(known, answer.GetLevel()) {
			return nil
		}
	}
}

func checkInstallation(answer *historyv1.GetInstallationResponse, partitions int) error {
	if int(answer.GetPartitions()) != partitions {
		return fmt.Errorf("%w: --nats.partitions is %d here and %d in the history service; set it to the latter", ErrMismatch, partitions, answer.GetPartitions())
	}
	if level := conversation.Level(answer.GetLevel()); level > conversation.MaxLevel() {
		return fmt.Errorf("%w: the installation's protocol level is %d and this build knows levels up to %d; run a newer build, the level never falls",
			ErrMismatch, level, conversation.MaxLevel())
	}
	if answer.GetLevel() == 0 {
		return errors.New("the history service did not report the installation's protocol level")
	}
	return nil
}

// watch repeats agree until ctx ends. If this gateway must stop, watch returns the reason.
func (i *installation) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		backoff.Pause(ctx.Done(), levelInterval*3/4+rand.N(levelInterval/2))
		err := i.agree(ctx)
		switch {
		case errors.Is(err, ErrMismatch):
			return err
		case err != nil && ctx.Err() == nil:
			i.log.Warn("the installation's protocol level could not be read; retrying soon", "error", err)
		}
	}
	return nil
}
