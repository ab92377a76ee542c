package client

// State is the connection state of a client.
//
//	  Start, or the wait is over      authenticated
//	Waiting ─────────────────▶ Connecting ──────▶ Connected
//	   ▲                           │                  │
//	   └── refused or timed out ───┘                  │
//	   └── lost, silent or told to go away ───────────┘
//
//	any of them ── Close, or closed by the gateway for good ──▶ Closed
type State int

const (
	// Waiting is before Start, and between attempts to connect.
	Waiting State = iota
	// Connecting is an attempt to connect.
	Connecting
	// Connected is an authenticated connection.
	Connected
	// Closed is the end.
	Closed
)

// String is the name used in logs.
func (s State) String() string {
	switch s {
	case Waiting:
		return "waiting"
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	default:
		return "closed"
	}
}

func (s State) leadsTo(next State) bool {
	switch next {
	case Connecting:
		return s == Waiting
	case Connected:
		return s == Connecting
	case Waiting:
		return s == Connecting || s == Connected
	default:
		return s != Closed
	}
}
