//go:build !runnel_bug_gateway_resume_off_by_one

package session

const bugResumeOffByOne = false
