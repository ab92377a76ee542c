//go:build runnel_bug_lazy_sync

package sqlite

// A planted bug (see store.BugNoWatermarkCheck): what is acknowledged is not on disk yet, so a loss of power takes it back.
const (
	synchronous      = "synchronous(off)"
	synchronousLevel = 0
)
