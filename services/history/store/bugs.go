package store

// Planted bugs, one build tag each. The torture run proves that it detects them. In every other build the
// constants are false and the code is compiled out. A bug's file bugs_<name>.go holds its tag.
//
//	runnel_bug_no_watermark_check           Append ignores the expected watermark: a worker that lost its partition can still
//	                                        commit, and the watermark can go back; positions need not be unique
//	runnel_bug_no_unique_key                a command that was committed before is committed again: the key of events is made
//	                                        not unique when the database is opened
//	runnel_bug_effects_outside_transaction  effects on views are written in a separate transaction, after the append was
//	                                        committed: if the process is killed in between, they are missing
//	runnel_bug_feed_skips                   the feed sometimes omits an event
//	runnel_bug_position_reused              a batch that begins an epoch does not raise it, and positions need not be unique
//	runnel_bug_lazy_sync                    SQLite does not sync what it commits (in package sqlite)
const (
	BugNoWatermarkCheck          = bugNoWatermarkCheck
	BugNoUniqueKey               = bugNoUniqueKey
	BugEffectsOutsideTransaction = bugEffectsOutsideTransaction
	BugFeedSkips                 = bugFeedSkips
	BugPositionReused            = bugPositionReused
)

// PlantedIndexes is SQL that drops the uniqueness of indexes that would prevent a planted bug; empty in ordinary builds.
func PlantedIndexes() string {
	var statements string
	if BugNoUniqueKey {
		statements += "DROP INDEX events_command; CREATE INDEX events_command ON events (command_id, conversation_id, sender);"
	}
	if BugNoWatermarkCheck || BugPositionReused {
		statements += "DROP INDEX events_position; CREATE INDEX events_position ON events (epoch_id, sequence);"
	}
	return statements
}
