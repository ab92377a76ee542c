//go:build runnel_bug_ack_before_commit

package commit

const bugAckBeforeCommit = true
