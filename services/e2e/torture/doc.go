// Package torture runs Runnel as separate processes under load, kills and pauses its parts at random, and checks from its
// records that the promises were kept: the invariants I1 to I13 of the design.
//
//	record.go    records of commands, answers and shown events, with device and time
//	view.go      one reader's view of one conversation: which event may follow
//	check.go     the invariants, each a pure function of the record and the store's content; check_feed.go: invariants of positions and the feed;
//	             check_members.go: invariants of memberships
//	store.go     the database, read directly: never through the history service; reading.go: its tables
//	replay.go    the state and views that result from replaying a log, and its erasures
//	snapshots.go conversations while they are written: do log and rows agree at every moment?
//	witness.go   reads the database at the moment of an answer or a shown event: is it committed?
//	faults.go    the kinds of faults
//	schedule.go  faults at random times; script.go: each kind once, and mixes without end; both drawn from a seed
//	inject.go    carries out faults, several at a time if they affect different parts
//	cluster.go   faults of several parts and of the network; disk.go: full disks and power losses
//	volume.go    separate file systems for disk faults, ext4 in a file: needs Linux and root
//	people.go    makes the devices, observers and conversations
//	devices.go   the load: users with devices, through the Go client
//	compose.go   the load: messages, and commands about messages
//	churn.go     the load: members that come and go
//	erase.go     an operator who erases
//	versions.go  mixed versions: decides the version of each started part
//	hand.go      commands sent without the Go client; newcomer.go: with a field of the next version
//	late.go      commands that are sent again after their refusal
//	feed.go      readers of the feed that die and continue
//	observer.go  uses the protocol without the Go client, whose repairs could hide a gateway's fault
//	slow.go      an observer that stops reading
//	settle.go    checks that everything works again; cost.go: checks that all resources were released
//	run.go       one run from start to verdict
//	roll.go      another kind of run: all gateways are replaced while thousands of clients are connected; crowd.go: these clients
//
// The package does not depend on the internals of a service. It judges a run by the data received over the protocol and the content of the database.
package torture
