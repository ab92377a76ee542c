//go:build !runnel_bug_lazy_sync

package sqlite

// Every commit is on disk before it is acknowledged.
const (
	synchronous      = "synchronous(full)"
	synchronousLevel = 2
)
