//go:build runnel_bug_resume_off_by_one

package inbox

// resumeOffByOne makes the client say at connect that it has one event more than it has, and believe it.
const resumeOffByOne = true
