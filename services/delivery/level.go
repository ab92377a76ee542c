package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/fleet"
	"github.com/runnelhq/runnel/pkg/ids"
)

const (
	// installationTimeout is the time limit of a call for the installation's settings. installationRetry is the wait
	// before the next call.
	installationTimeout = 5 * time.Second
	installationRetry   = time.Second
	handOverTimeout     = 5 * time.Second
)

// ErrLevel means that this build does not know the installation's protocol level: the build is too old.
var ErrLevel = errors.New("the installation's protocol level is higher than this version knows; start the version that raised it, or a newer one")

// ErrPartitions means that this worker and the history service are configured with different numbers of partitions.
var ErrPartitions = errors.New("the number of partitions is not that of the history service")

// RaiseLevel raises the installation's protocol level to the highest level that this build knows. It logs this before,
// and returns the level in force. Only a process that contains all parts of its installation may call it: parts in other
// processes may not know the level.
func RaiseLevel(ctx context.Context, history historyv1.HistoryServiceClient, log *slog.Logger) (conversation.Level, error) {
	installation, err := history.GetInstallation(ctx, &historyv1.GetInstallationRequest{})
	if err != nil {
		return 0, fmt.Errorf("get the installation's level: %w", err)
	}
	level, most := conversation.Level(installation.GetLevel()), conversation.MaxLevel()
	switch {
	case level > most:
		return level, fmt.Errorf("%w: level %d, this version knows %d", ErrLevel, level, most)
	case level == most:
		return level, nil
	}
	log.InfoContext(ctx, "raising the protocol level; older versions cannot use this data any more", "from", level, "to", most)
	raised, err := history.RaiseLevel(ctx, &historyv1.RaiseLevelRequest{Level: uint32(most)})
	if err != nil {
		return level, fmt.Errorf("raise the installation's level from %d to %d: %w", level, most, err)
	}
	return conversation.Level(raised.GetLevel()), nil
}

// installation contains the settings of the worker's installation, as the history service reports them. It is safe for
// concurrent use. All fields but level are required.
type installation struct {
	history    historyv1.HistoryServiceClient
	fleet      *fleet.Fleet
	worker     string // name of this worker
	partitions int    // number of partitions in this worker's configuration
	log        *slog.Logger
	level      atomic.Uint32 // the last level read
}

// await reads the installation's settings, and returns an error if this worker does not match them. It waits while the history
// service is unavailable.
func (i *installation) await(ctx context.Context) error {
	for complained := false; ; {
		settings, err := i.read(ctx)
		if err == nil {
			return i.fits(settings)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the worker was stopped before it began
		}
		if !complained {
			complained = true
			i.log.Warn("the history service is unavailable; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(installationRetry):
		}
	}
}

// read reads the settings, and records the level.
func (i *installation) read(ctx context.Context) (*historyv1.GetInstallationResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, installationTimeout)
	defer cancel()
	settings, err := i.history.GetInstallation(ctx, &historyv1.GetInstallationRequest{})
	if err == nil {
		i.level.Store(settings.GetLevel())
	}
	return settings, err
}

// fits returns an error if this worker does not match the settings.
func (i *installation) fits(settings *historyv1.GetInstallationResponse) error {
	if level := conversation.Level(settings.GetLevel()); level > conversation.MaxLevel() {
		return fmt.Errorf("%w: level %d, this version knows %d", ErrLevel, level, conversation.MaxLevel())
	}
	if theirs := int(settings.GetPartitions()); theirs != i.partitions {
		return fmt.Errorf("%w: this worker has %d (nats.partitions), history %d; it is fixed for the life of an installation",
			ErrPartitions, i.partitions, theirs)
	}
	return nil
}

// admits reports whether the installation's level is at least level. The level only rises, so it is read again only if it
// seems too low.
func (i *installation) admits(ctx context.Context, level conversation.Level) bool {
	if level > conversation.Level(i.level.Load()) {
		if _, err := i.read(ctx); err != nil {
			return false
		}
	}
	return level <= conversation.Level(i.level.Load())
}

// handOver moves a partition to a live worker that knows a level. It returns the name of that worker; empty if there is
// none.
func (i *installation) handOver(ctx context.Context, partition ids.Partition, level conversation.Level) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	var able []string
	for _, member := range i.fleet.Members("delivery") {
		if member.Level >= level && member.Instance != i.worker {
			able = append(able, member.Instance)
		}
	}
	if len(able) == 0 {
		return "", nil
	}
	worker := able[rand.N(len(able))]
	_, err := i.history.MovePartition(ctx, &historyv1.MovePartitionRequest{Partition: uint32(partition), Worker: worker})
	if err != nil {
		return "", fmt.Errorf("move partition %d to %s: %w", partition, worker, err)
	}
	return worker, nil
}
