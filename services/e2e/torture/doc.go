// Package torture runs Runnel as separate processes under load, kills and pauses its parts at random, and checks from what
// was recorded that the promises were kept: the invariants I1 to I13 of the design.
//
//	record.go    what was asked, answered and shown, by whom and when
//	view.go      one reader's view of one conversation: what may follow what
//	check.go     the invariants, each a pure function over the record and the store's content; check_feed.go: those of positions and the feed;
//	             check_members.go: those of memberships
//	store.go     the database, read directly: never through the history service; reading.go: its tables
//	replay.go    what a log amounts to when it is replayed, and what it erases
//	snapshots.go conversations while they are written: do log and rows agree at every moment?
//	witness.go   reads the database the moment something is answered or shown: is it committed?
//	faults.go    what can go wrong
//	schedule.go  faults at random times; script.go: each kind once, and mixes without end; both drawn from a seed
//	inject.go    carrying faults out, several at a time where they do not hit the same
//	cluster.go   those of several parts and of the network; disk.go: full disks and losses of power
//	volume.go    file systems of their own for that, ext4 in a file: Linux and root
//	people.go    who is there: devices, observers, conversations
//	devices.go   the load: users with devices, through the Go client
//	compose.go   the load: messages, and what is about messages
//	churn.go     the load: members that come and go
//	erase.go     an operator who erases
//	versions.go  mixed versions: which one a part is started as
//	hand.go      commands given without the client; newcomer.go: with a field of the next version
//	late.go      commands that are given again after their refusal
//	feed.go      readers of the feed that die and go on
//	observer.go  the protocol spoken by hand, so that the client's healing cannot hide a gateway's mistake
//	slow.go      an observer that stops reading
//	settle.go    whether everything works again; cost.go: whether everything was given back
//	run.go       one run from start to verdict
//	roll.go      another kind of run: all gateways are replaced under thousands of clients; crowd.go: those
//
// Nothing here knows how a service works inside. A run is judged by what came over the protocol and what stands in the database.
package torture
