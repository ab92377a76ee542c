//go:build !runnel_bug_refusal_forgotten

package dedupe

const bugRefusalForgotten = false
