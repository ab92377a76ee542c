//go:build !runnel_bug_effects_outside_transaction

package store

const bugEffectsOutsideTransaction = false
