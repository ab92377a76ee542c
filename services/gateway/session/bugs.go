package session

// Planted bugs. Each is switched on by a build tag of the torture run, which must then fail; the constant is false in
// every other build and the branch is compiled out.
//
//	runnel_bug_gateway_resume_off_by_one   a resumed conversation begins one event too late
