//go:build !runnel_bug_position_reused

package store

const bugPositionReused = false
