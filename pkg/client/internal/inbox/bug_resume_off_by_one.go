//go:build runnel_bug_resume_off_by_one

package inbox

// resumeOffByOne makes the client report at connect, and assume itself, that it has one event more than it has.
const resumeOffByOne = true
