package store

// Bugs that are planted on purpose, one build tag each, so that the torture run can prove that it would notice them. In every
// other build they are false and compiled out. A bug's file bugs_<name>.go holds its tag.
//
//	runnel_bug_no_watermark_check   Append ignores the expected watermark: a worker that lost its partition can still commit,
//	                                and the watermark can go back
//	runnel_bug_no_unique_key        a command that was committed before is committed again: the key of events is made
//	                                not unique when the database is opened
//	runnel_bug_lazy_sync            SQLite does not sync what it commits (in package sqlite)
const (
	BugNoWatermarkCheck = bugNoWatermarkCheck
	BugNoUniqueKey      = bugNoUniqueKey
)
