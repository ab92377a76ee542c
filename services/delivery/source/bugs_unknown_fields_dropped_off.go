//go:build !runnel_bug_unknown_fields_dropped

package source

const bugUnknownFieldsDropped = false
