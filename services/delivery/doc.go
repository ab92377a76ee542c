// Package delivery puts commands in order, commits them through the history service, and publishes the results. A worker works on
// some of the partitions. All its state can be loaded from the store. It never talks to clients and contains no SQL. Its
// guarantees rest on the watermark: the store refuses an append unless the worker knows the last committed position.
//
// This package contains the wiring, the gRPC service and the installation's level. Each part is a package, and depends only
// on packages listed below it:
//
//	partition  one partition: partition/takeover, partition/reader, partition/plan (pure), partition/commit
//	lease      which partitions the worker works on
//	purge      removes committed commands from the stream
//	cache      states, facts and cursors of conversations in memory
//	cursor     stores acknowledged positions as cursors, then publishes receipts
//	dedupe     earlier outcomes and refusals, which answer later copies
//	publish    results, events and receipts to gateways
//	flight     recorder and traces: the history of an event
//	source     messages of the stream, decoded; its position relative to a watermark
//	store, metrics, wake   calls to the history service, counters, signals
//
// The path of a batch: reader.Queue ─▶ commit.Committer (cache loads, plan.Planner decides, store appends) ─▶ cache, dedupe,
// publish, flight. An acknowledgement goes ─▶ cache ─▶ cursor.Flusher ─▶ store ─▶ publish.
//
// Planted bugs: each build tag breaks one promise on purpose, to prove that the torture run detects it.
//
//	runnel_bug_ack_before_commit       results are published before the append (breaks I1, I7)
//	runnel_bug_fanout_before_commit    live events are published before the append (breaks I6)
//	runnel_bug_refusal_forgotten       a later copy of a refused command is decided again (breaks I13)
//	runnel_bug_needs_not_loaded        commands are checked without the messages they refer to (breaks I11)
//	runnel_bug_unknown_fields_dropped  bodies lose the fields that this version does not know (breaks I4 where versions are mixed)
//	runnel_bug_purge_above_watermark   commands that are not committed are purged from the stream (breaks I1)
//
// Without the tags the constants are false and the compiler drops the code.
package delivery
