//go:build runnel_bug_needs_not_loaded

package commit

// BugNeedsNotLoaded is a planted bug, switched on in this build. The planner's tests expect it, so that only the torture
// run detects it.
const BugNeedsNotLoaded = true
