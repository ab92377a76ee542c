//go:build !runnel_bug_fanout_before_commit

package delivery

const bugFanoutBeforeCommit = false
