package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// errTooNew means that this build cannot decide a command, because the command's version is newer. The command is not
// refused and does not become a dead letter, because a newer worker can decide it.
var errTooNew = errors.New("a command is of a newer version than this worker")

// levelTimeout is how long the history service may take to return the installation's level.
const levelTimeout = 5 * time.Second

// cannotJudge handles a command that this build cannot decide. It hands the partition over to a newer worker, if there is
// one, and returns why the partition stops. If the command claims a level above the installation's, it does not come from
// a newer version: gateways admit commands only up to the installation's level. For such a command it returns nil, and
// the entry is invalid.
func (w *Worker) cannotJudge(ctx context.Context, e *source.Message) error {
	asking, cancel := context.WithTimeout(ctx, levelTimeout)
	installation, err := w.History.GetInstallation(asking, &historyv1.GetInstallationRequest{})
	cancel()
	if err != nil {
		return fmt.Errorf("%w: message %d; the installation's level is not known: %w", errTooNew, e.Sequence, err)
	}
	if conversation.Level(installation.GetLevel()) <= conversation.MaxLevel() {
		e.TooNew, e.Overstated = false, true
		return nil
	}
	w.Metrics.TooNew.Inc()
	level := max(conversation.Level(e.Command.GetLevel()), conversation.MaxLevel()+1)
	worker, err := w.HandOver(ctx, w.Partition, level)
	switch {
	case err != nil:
		w.Log.Warn("could not hand the partition over to a newer worker", "error", err)
	case worker != "":
		return fmt.Errorf("%w: message %d is of level %d, this version knows %d; the partition goes to %s, which knows it",
			errTooNew, e.Sequence, level, conversation.MaxLevel(), worker)
	}
	return fmt.Errorf("%w: message %d is of level %d, this version knows %d. Start workers of the version that knows level %d",
		errTooNew, e.Sequence, level, conversation.MaxLevel(), level)
}
