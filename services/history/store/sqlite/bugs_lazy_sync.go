//go:build runnel_bug_lazy_sync

package sqlite

// A planted bug (see store.BugNoWatermarkCheck): acknowledged writes are not on disk yet, so a loss of power undoes them.
const (
	synchronous      = "synchronous(off)"
	synchronousLevel = 0
)
