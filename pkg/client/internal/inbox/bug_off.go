//go:build !runnel_bug_resume_off_by_one

package inbox

// resumeOffByOne is a bug that only the build tag runnel_bug_resume_off_by_one plants, to show that tests would find it.
const resumeOffByOne = false
