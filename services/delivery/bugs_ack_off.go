//go:build !runnel_bug_ack_before_commit

package delivery

const bugAckBeforeCommit = false
