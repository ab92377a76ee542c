//go:build !runnel_bug_fanout_before_commit

package commit

const bugFanoutBeforeCommit = false
