// Package shards spreads an installation's partitions over several history services, each with a database of its own. A Router is a
// client of all of them that looks like a client of one:
//
//	router.go         which shard has a partition or a conversation
//	partition.go      calls of one partition or one conversation go to its shard
//	conversations.go  calls with a list of conversations are divided among the shards, and their answers joined
//	user.go           calls about a user go to all shards, and their answers are merged
//	home.go           leases, revocations and the installation's settings are kept by the first shard, or by all alike
//	unsupported.go    calls that cannot be routed yet: they fail with UNIMPLEMENTED
//
// A partition never moves between shards. No program uses a Router yet: see deploy/SCALING.md for what is missing.
package shards
