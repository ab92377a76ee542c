package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/runnelhq/runnel/pkg/conversation"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Installation knows what all parts of an installation must agree on, and what its last backup holds.
type Installation interface {
	// Partitions is the number of partitions that the database was made with.
	Partitions() int
	// Level is the protocol level.
	Level(ctx context.Context) (conversation.Level, error)
	// RaiseLevel raises the level. ErrLevel when the stored one is higher.
	RaiseLevel(ctx context.Context, level conversation.Level) error
	// MarkBackup stores what a backup holds, all marks or none, and returns all that are stored. Without marks those of the
	// present watermarks are stored. *InvalidError when a mark is above the partition's watermark.
	MarkBackup(ctx context.Context, marks []*historyv1.BackupMark) ([]*historyv1.BackupMark, error)
	// BackupMark is the watermark that the last backup holds; nil when none was marked.
	BackupMark(ctx context.Context, partition uint32) (*historyv1.Watermark, error)
}

// LevelText is a level as it is stored.
func LevelText(level conversation.Level) string { return strconv.FormatUint(uint64(level), 10) }

// ParseLevel reads a stored level.
func ParseLevel(text string) (conversation.Level, error) {
	level, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the stored protocol level is %q, not a number: %w", text, err)
	}
	return conversation.Level(level), nil
}

// CheckLevel returns an error when a database of this level cannot be opened by this build.
func CheckLevel(level conversation.Level) error {
	if level > conversation.MaxLevel() {
		return fmt.Errorf("the installation's protocol level is %d and this build of Runnel knows levels up to %d: install the version that "+
			"the level was raised with, or a later one; a level is never lowered", level, conversation.MaxLevel())
	}
	return nil
}

// CheckMark returns an *InvalidError when a mark lies above the present watermark.
func CheckMark(i int, mark *historyv1.BackupMark, present *historyv1.Watermark) error {
	if ComparePositions(mark.GetWatermark(), present) > 0 {
		return Invalid(fmt.Sprintf("marks[%d].watermark", i), "is above the partition's present watermark")
	}
	return nil
}

// ErrFormer is what opening a database of a former schema gives.
var ErrFormer = errors.New("it was made by an earlier version of Runnel, whose events cannot be read by this one: " +
	"start with a new data directory (standalone) or a new, empty database, and keep or remove the old one")
