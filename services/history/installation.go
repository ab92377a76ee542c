package history

import (
	"context"
	"fmt"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// GetInstallation returns the settings that all parts of the installation must agree on.
func (s *Server) GetInstallation(ctx context.Context, _ *historyv1.GetInstallationRequest) (*historyv1.GetInstallationResponse, error) {
	return do(ctx, s, s.metrics.getInstallation, nil, func(ctx context.Context) (*historyv1.GetInstallationResponse, error) {
		level, err := s.store.Level(ctx)
		return &historyv1.GetInstallationResponse{Partitions: uint32(s.store.Partitions()), Level: uint32(level)}, err
	})
}

// RaiseLevel raises the protocol level. It refuses a level that this build does not know: this service could not open its
// database again.
func (s *Server) RaiseLevel(ctx context.Context, request *historyv1.RaiseLevelRequest) (*historyv1.RaiseLevelResponse, error) {
	return do(ctx, s, s.metrics.raiseLevel, checkLevel(request.GetLevel()), func(ctx context.Context) (*historyv1.RaiseLevelResponse, error) {
		level := conversation.Level(request.GetLevel())
		if err := s.store.RaiseLevel(ctx, level); err != nil {
			return nil, err
		}
		s.log.InfoContext(ctx, "the installation's protocol level is raised", "level", level)
		return &historyv1.RaiseLevelResponse{Level: request.GetLevel()}, nil
	})
}

// MarkBackup records the watermarks that a backup contains.
func (s *Server) MarkBackup(ctx context.Context, request *historyv1.MarkBackupRequest) (*historyv1.MarkBackupResponse, error) {
	return do(ctx, s, s.metrics.markBackup, s.checkMarks(request.GetMarks()), func(ctx context.Context) (*historyv1.MarkBackupResponse, error) {
		marks, err := s.store.MarkBackup(ctx, request.GetMarks())
		return &historyv1.MarkBackupResponse{Marks: marks}, err
	})
}

// levelError returns the error for a level that this build does not know.
type levelError struct{ level, highest conversation.Level }

func (e *levelError) Error() string {
	return fmt.Sprintf("this build of the history service knows protocol levels up to %d, not %d: install a later version everywhere first", e.highest, e.level)
}

func checkLevel(level uint32) error {
	switch asked := conversation.Level(level); {
	case asked < conversation.MinLevel:
		return store.Invalid("level", "must be %d or higher", conversation.MinLevel)
	case asked > conversation.MaxLevel():
		return &levelError{asked, conversation.MaxLevel()}
	}
	return nil
}

func (s *Server) checkMarks(marks []*historyv1.BackupMark) error {
	if len(marks) > s.store.Partitions() {
		return store.Invalid("marks", "must be at most %d, the number of partitions", s.store.Partitions())
	}
	for i, mark := range marks {
		if err := s.checkPartition(fmt.Sprintf("marks[%d].partition", i), ids.Partition(mark.GetPartition())); err != nil {
			return err
		}
		if err := checkWatermark(fmt.Sprintf("marks[%d].watermark", i), mark.GetWatermark(), false); err != nil {
			return err
		}
	}
	return nil
}
