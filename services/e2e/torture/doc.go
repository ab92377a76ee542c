// Package torture runs Runnel as separate processes under load, kills and pauses its parts at random, and checks from what
// was recorded that the promises were kept: the invariants I1 to I10 of the design.
//
//	record.go    what was asked, answered and shown, by whom and when
//	view.go      one reader's view of one conversation: what may follow what
//	check.go     the invariants, each a pure function over the record and the store's content
//	store.go     the database, read directly: never through the history service
//	witness.go   reads the database the moment something is answered or shown: is it committed?
//	faults.go    the schedule of faults, drawn from a seed, and carrying it out
//	devices.go   the load: users with devices, through the Go client
//	churn.go     the load: members that come and go
//	observer.go  the protocol spoken by hand, so that the client's healing cannot hide a gateway's mistake
//	run.go       one run from start to verdict
//
// Nothing here knows how a service works inside. A run is judged by what came over the protocol and what stands in the database.
package torture
