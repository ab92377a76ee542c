//go:build runnel_bug_needs_not_loaded

package commit

// BugNeedsNotLoaded is a planted bug; the tests of the planner follow it, so that the torture run alone finds it.
const BugNeedsNotLoaded = true
