package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// ErrMismatch means that this gateway cannot serve the installation: it is of an older build than the installation's protocol
// level needs, or is set to another number of partitions.
var ErrMismatch = errors.New("this gateway does not fit the installation")

// levelInterval is about how often the installation's level is asked for: what an operator raises is admitted that much later.
const levelInterval = 5 * time.Second

// level is the installation's protocol level as this gateway knows it; 0 before the store has answered. It never falls.
func (g *Gateway) level() conversation.Level { return conversation.Level(g.installationLevel.Load()) }

// agree asks the store what all parts of the installation must agree on. The error wraps ErrMismatch when this gateway must
// not serve clients, whatever happens.
func (g *Gateway) agree(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.HistoryTimeout)
	defer cancel()
	g.metrics.Reads[metrics.ReadInstallation].Inc()
	answer, err := g.history.GetInstallation(ctx, &historyv1.GetInstallationRequest{})
	if err != nil {
		return fmt.Errorf("ask the history service about the installation: %w", err)
	}
	if err := checkInstallation(answer, g.partitions); err != nil {
		return err
	}
	for {
		known := g.installationLevel.Load()
		if answer.GetLevel() <= known || g.installationLevel.CompareAndSwap(known, answer.GetLevel()) {
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
		return errors.New("the history service does not say which protocol level the installation has")
	}
	return nil
}

// watchInstallation asks again and again until ctx ends, or until this gateway must stop: then it returns why.
func (g *Gateway) watchInstallation(ctx context.Context) error {
	for ctx.Err() == nil {
		pause(ctx.Done(), levelInterval*3/4+rand.N(levelInterval/2))
		err := g.agree(ctx)
		switch {
		case errors.Is(err, ErrMismatch):
			return err
		case err != nil && ctx.Err() == nil:
			g.log.Warn("the installation's protocol level could not be read; the next try comes soon", "error", err)
		}
	}
	return nil
}
