package delivery

// Planted bugs. Each build tag breaks one promise on purpose, so that the torture run can be shown to notice:
//
//	runnel_bug_ack_before_commit       results are published before the append (breaks I1, I7)
//	runnel_bug_fanout_before_commit    live events are published before the append (breaks I6)
//	runnel_bug_refusal_forgotten       a later copy of a refused command is judged anew (breaks I13)
//	runnel_bug_needs_not_loaded        commands are judged without what they refer to (breaks I11)
//	runnel_bug_unknown_fields_dropped  bodies lose the fields that this version does not know (breaks I4 where versions are mixed)
//	runnel_bug_purge_above_watermark   commands that are not committed are purged from the stream (breaks I1)
//
// Without the tags the constants are false and the compiler drops the code.
