//go:build !runnel_bug_resume_off_by_one

package inbox

// resumeOffByOne is a planted bug; it is true only with the build tag runnel_bug_resume_off_by_one. It proves that the
// tests would find such a bug.
const resumeOffByOne = false
