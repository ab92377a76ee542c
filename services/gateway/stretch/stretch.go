// Package stretch decides what a client still has to be told of one conversation. A stretch is one membership of the client's
// user: the seqs from the event that began it to the event that ended it. The package has no clock and does no I/O: a session
// asks for the next step, carries it out, and reports that it did.
//
// The promise: each stretch is told once, in order, between one Attach and one Detach, and nothing outside a stretch is told.
// Notices of new memberships may be late, repeated or lost. They only start the work: what is told follows from the store.
//
//	stretch.go  a page of the store as stretches, and the steps
//	state.go    what was told so far
//	next.go     what to do next
package stretch

import "github.com/runnelhq/runnel/pkg/ids"

// Stretch is the part of one membership that is in a page.
type Stretch struct {
	// From is the event that began the membership; 0 if the page begins inside it.
	From ids.Seq
	// Last is the last event of the membership in the page.
	Last ids.Seq
	// Ended reports whether Last ended the membership. Otherwise the membership lasts, or ends beyond the page.
	Ended bool
	// Old reports whether the membership began before the session did.
	Old bool
}

// Page is what the store has after State.After for one user, from one snapshot.
type Page struct {
	// Known reports whether the user ever was a member.
	Known bool
	// Member reports whether the user is a member.
	Member bool
	// Head is the newest event that the user may see.
	Head ids.Seq
	// Stretches are in order. All events up to the Last of the last one are in the page.
	Stretches []Stretch
	// Diverged reports whether the log ends before State.After, or has another event there than the client.
	Diverged bool
}

// View is what is known of the store. The zero value means that nothing was read yet.
type View struct {
	// Page is nil if no page was read.
	Page *Page
	// Listed reports whether the present membership was looked up, after the page was read if there is one.
	Listed bool
	// Present is the event that began the present membership; 0 if there is none.
	Present ids.Seq
}

// Action is the kind of a step.
type Action int

// After a step was carried out, State.Done is called, and State.Next again.
const (
	// Rest means that everything was told.
	Rest Action = iota
	// LookUp: look up the present membership.
	LookUp
	// Read: read a page after State.After.
	Read
	// Again: discard the view.
	Again
	// Attach: announce the membership that begins with From. Last is the last event of it that is known.
	Attach
	// Tell: send the events after State.Position up to Last. They are in the page.
	Tell
	// Hide: report that the user may not see the events From to Last.
	Hide
	// Skip: pass over events up to Last. They belong to a membership that ended before the session began.
	Skip
	// Detach: announce that the membership ended with Last.
	Detach
	// Subscribe: subscribe to the membership that began with From; the client has everything up to Last. It is announced like
	// Attach unless the client takes itself as a member.
	Subscribe
	// Diverge: report that the client is on another branch of the log.
	Diverge
	// Forget: discard the view and the position. The log ends before events that were told.
	Forget
)

// Step is what has to be done next.
type Step struct {
	Do         Action
	From, Last ids.Seq
}
