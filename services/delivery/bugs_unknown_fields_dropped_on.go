//go:build runnel_bug_unknown_fields_dropped

package delivery

const bugUnknownFieldsDropped = true
