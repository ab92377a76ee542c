package delivery

// Planted bugs. Each build tag breaks one promise on purpose, so that the torture run can be shown to notice:
//
//	runnel_bug_ack_before_commit     results are published before the append (breaks I1, I7)
//	runnel_bug_fanout_before_commit  live events are published before the append (breaks I6)
//
// Without the tags the constants are false and the compiler drops the code.
