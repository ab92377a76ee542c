package store

import (
	"context"
	"fmt"
	"strconv"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Installation stores the settings that all parts of an installation must agree on, and the watermarks in its last
// backup.
type Installation interface {
	// Partitions is the number of partitions that the database was created with.
	Partitions() int
	// Level returns the protocol level.
	Level(ctx context.Context) (conversation.Level, error)
	// RaiseLevel raises the level. ErrLevel if the stored level is higher.
	RaiseLevel(ctx context.Context, level conversation.Level) error
	// MarkBackup stores the marks of a backup, all or none, and returns all stored marks. Without marks it stores the
	// current watermarks. *InvalidError if a mark is above the partition's watermark.
	MarkBackup(ctx context.Context, marks []*historyv1.BackupMark) ([]*historyv1.BackupMark, error)
	// BackupMark returns the watermark in the last backup; nil if no backup was marked.
	BackupMark(ctx context.Context, partition ids.Partition) (*historyv1.Watermark, error)
}

// LevelText returns a level in its stored form.
func LevelText(level conversation.Level) string { return strconv.FormatUint(uint64(level), 10) }

// ParseLevel parses a stored level.
func ParseLevel(text string) (conversation.Level, error) {
	level, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the stored protocol level is %q, not a number: %w", text, err)
	}
	return conversation.Level(level), nil
}

// CheckLevel returns an error if a database of this level cannot be opened by this build.
func CheckLevel(level conversation.Level) error {
	if level > conversation.MaxLevel() {
		return fmt.Errorf("the installation's protocol level is %d and this build of Runnel knows levels up to %d: install the version that "+
			"the level was raised with, or a later one; a level is never lowered", level, conversation.MaxLevel())
	}
	return nil
}

// CheckMark returns an *InvalidError if a mark is above the current watermark.
func CheckMark(i int, mark *historyv1.BackupMark, present *historyv1.Watermark) error {
	if ComparePositions(mark.GetWatermark(), present) > 0 {
		return Invalid(fmt.Sprintf("marks[%d].watermark", i), "is above the partition's current watermark")
	}
	return nil
}
