//go:build runnel_bug_no_unique_key

package store

const bugNoUniqueKey = true
