// Package stretch decides what a client has yet to be sent of one conversation. A stretch is one membership of the client's
// user: the seqs from the event that began it to the event that ended it. The package has no clock and does no I/O: a session
// asks for the next step, carries it out, and reports that it did.
//
// The promise: each stretch is sent once, in order, between one Attach and one Detach, and no event outside a stretch is sent.
// Notices of new memberships may be late, repeated or lost. They only start the work: its result depends only on the store.
//
//	stretch.go  a page of the store as stretches, and the steps
//	state.go    what was sent so far
//	next.go     what to do next
package stretch

import "github.com/runnelhq/runnel/pkg/ids"

// Stretch is the part of one membership that is in a page.
type Stretch struct {
	// From is the event that began the membership; 0 if the page begins inside it.
	From ids.Seq
	// Last is the last event of the membership in the page.
	Last ids.Seq
	// Ended reports whether Last ended the membership. If false, the membership is present, or ends beyond the page.
	Ended bool
	// Old reports whether the membership began before the session did, by the times of events. A notice knows better: see
	// State.NoticeNow.
	Old bool
}

// Page is a page of the store for one user, after State.After, from one snapshot.
type Page struct {
	// Known reports whether the user ever was a member.
	Known bool
	// Member reports whether the user is a member.
	Member bool
	// Head is the newest event that the user may see.
	Head ids.Seq
	// Stretches are in order. All events up to the Last of the last one are in the page.
	Stretches []Stretch
	// Diverged reports whether the log ends before State.After, or whether its event at that seq differs from the
	// client's.
	Diverged bool
}

// View is the data read from the store so far. The zero value means that nothing was read yet.
type View struct {
	// Page is nil if no page was read.
	Page *Page
	// Listed reports whether the present membership was looked up. If there is a page, the lookup must come after the
	// page.
	Listed bool
	// Present is the event that began the present membership; 0 if there is none.
	Present ids.Seq
	// Ended is the event that began the earliest membership that is not older than the session and has ended; 0 if there is none. It
	// was looked up after Present.
	Ended ids.Seq
}

// Action is the kind of a step.
type Action int

// After each step, the caller calls State.Done, and then State.Next again.
const (
	// Rest means that the client has everything.
	Rest Action = iota
	// LookUp: look up the present membership, and the earliest one that has ended.
	LookUp
	// Begin: begin with the membership that began with From, although no notice named it.
	Begin
	// Read: read a page after State.After.
	Read
	// Again: discard the view.
	Again
	// Attach: announce the membership that begins with From. Last is its last known event.
	Attach
	// Tell: send the events after State.Position up to Last. They are in the page.
	Tell
	// Hide: report that the user may not see the events From to Last.
	Hide
	// Skip: pass over events up to Last. They belong to a membership that ended before the session began.
	Skip
	// Detach: announce that the membership ended with Last.
	Detach
	// Subscribe: subscribe to the membership that began with From; the client has everything up to Last. Announce the
	// membership like Attach, unless State.IsOpen.
	Subscribe
	// Diverge: report that the client is on another branch of the log.
	Diverge
	// Forget: discard the view and the position. The log ends before events that the client was sent.
	Forget
)

// Step is the next thing that the caller must do.
type Step struct {
	Do         Action
	From, Last ids.Seq
}
