//go:build !runnel_bug_needs_not_loaded

package delivery

const bugNeedsNotLoaded = false
