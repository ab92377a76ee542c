//go:build runnel_bug_resume_off_by_one

package inbox

// resumeOffByOne makes the client report a position that is one event too high at connect, and continue from there.
const resumeOffByOne = true
