//go:build !runnel_bug_needs_not_loaded

package commit

// BugNeedsNotLoaded is a planted bug. The planner's tests take it into account, so that only the torture run detects it.
const BugNeedsNotLoaded = false
