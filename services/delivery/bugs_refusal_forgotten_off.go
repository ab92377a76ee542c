//go:build !runnel_bug_refusal_forgotten

package delivery

const bugRefusalForgotten = false
