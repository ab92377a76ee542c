package torture

import (
	"fmt"
	"strings"
	"time"

	"github.com/runnelhq/runnel/services/e2e/proxy"
)

// FaultKind is the kind of a fault.
type FaultKind string

// Faults of one process.
const (
	// FaultKill sends SIGKILL; the part is restarted after For.
	FaultKill FaultKind = "kill"
	// FaultStop sends SIGTERM and waits; the part is restarted at once.
	FaultStop FaultKind = "stop"
	// FaultPause sends SIGSTOP, and SIGCONT after For.
	FaultPause FaultKind = "pause"
	// FaultWipe sends SIGKILL and removes all data of the part. It is only for NATS, whose streams are then created
	// again.
	FaultWipe FaultKind = "wipe"
	// FaultZombie pauses a worker beyond its lease. When the worker continues, it tries to commit commands that other
	// workers have committed, and must be refused.
	FaultZombie FaultKind = "zombie"
	// FaultLameDuck puts a NATS server into lame-duck mode. After the server has ended, it is restarted at once.
	FaultLameDuck FaultKind = "lame duck"
)

// Faults of several parts at once.
const (
	// FaultLeader kills the NATS server that leads the stream of a partition; the server is restarted after For.
	FaultLeader FaultKind = "kill leader"
	// FaultRoll stops and restarts all parts of a kind, one after another; each waits until the previous part works
	// again.
	FaultRoll FaultKind = "roll"
	// FaultStorm makes all clients reconnect at once: all gateways are killed (Part gateway), or all connections are
	// reset (Part clients).
	FaultStorm FaultKind = "storm"
	// FaultNetwork disturbs the network between Part and Other, in the way Trouble, for the time For.
	FaultNetwork FaultKind = "network"
	// FaultSlow makes a client stop reading until the gateway closes its connection; then it resumes.
	FaultSlow FaultKind = "slow reader"
	// FaultFull fills the volume of Part, for the time For.
	FaultFull FaultKind = "full disk"
	// FaultPower is a power loss: data that was not synced to the volumes is lost. Part is all, nats or database.
	FaultPower FaultKind = "power loss"
)

// everything is the Part of a fault that affects all parts.
const everything = "all"

// Trouble is a kind of network disturbance.
type Trouble string

// The kinds of trouble. Up is the direction from the side that connects; down is the opposite direction.
const (
	TroubleCut      Trouble = "cut"   // existing connections are reset, new ones are refused
	TroubleReset    Trouble = "reset" // existing connections are reset, new ones work
	TroubleHold     Trouble = "hold"
	TroubleHoldUp   Trouble = "hold up"
	TroubleHoldDown Trouble = "hold down"
	TroubleLose     Trouble = "lose"
	TroubleLoseUp   Trouble = "lose up"
	TroubleLoseDown Trouble = "lose down"
	TroubleDelay    Trouble = "delay"
	TroubleTrickle  Trouble = "trickle"
)

// Troubles are all kinds of trouble.
var Troubles = []Trouble{
	TroubleCut, TroubleReset, TroubleHold, TroubleHoldUp, TroubleHoldDown, TroubleLose, TroubleLoseUp, TroubleLoseDown, TroubleDelay, TroubleTrickle,
}

// weather returns the proxy's settings, and whether existing connections are reset first.
func (t Trouble) weather() (w proxy.Weather, reset bool) {
	hold, lose := proxy.Flow{Hold: true}, proxy.Flow{Lose: true}
	long, thin := proxy.Flow{Delay: 60 * time.Millisecond}, proxy.Flow{Rate: 16 << 10}
	switch t {
	case TroubleCut:
		return proxy.Weather{Refuse: true}, true
	case TroubleReset:
		return proxy.Weather{}, true
	case TroubleHold:
		return proxy.Weather{Up: hold, Down: hold}, false
	case TroubleHoldUp:
		return proxy.Weather{Up: hold}, false
	case TroubleHoldDown:
		return proxy.Weather{Down: hold}, false
	case TroubleLose:
		return proxy.Weather{Up: lose, Down: lose}, false
	case TroubleLoseUp:
		return proxy.Weather{Up: lose}, false
	case TroubleLoseDown:
		return proxy.Weather{Down: lose}, false
	case TroubleDelay:
		return proxy.Weather{Up: long, Down: long}, false
	case TroubleTrickle:
		return proxy.Weather{Up: thin, Down: thin}, false
	}
	return proxy.Weather{}, false
}

// Fault is one fault to carry out.
type Fault struct {
	// At is the time of the fault in a schedule.
	At   time.Duration
	Kind FaultKind
	Part string
	// Other and Trouble are only for FaultNetwork.
	Other   string
	Trouble Trouble
	// Partition is only for FaultLeader: the leader of this partition's stream is killed.
	Partition int
	For       time.Duration
}

func (f Fault) String() string {
	what := fmt.Sprintf("%s %s", f.Kind, f.Part)
	if f.Kind == FaultNetwork {
		what = fmt.Sprintf("%s %s–%s", f.Trouble, f.Part, f.Other)
	}
	if f.For == 0 {
		return what
	}
	return fmt.Sprintf("%s for %v", what, f.For.Round(10*time.Millisecond))
}

// name returns the fault's name without the number of the part.
func (f Fault) name() string {
	part, _, _ := strings.Cut(f.Part, "-")
	if f.Kind != FaultNetwork {
		return string(f.Kind) + " " + part
	}
	other, _, _ := strings.Cut(f.Other, "-")
	return string(f.Trouble) + " " + part + "–" + other
}

// claims returns the resources that no other fault may affect at the same time: parts by name or kind, networks, or
// everything.
func (f Fault) claims() []string {
	switch f.Kind {
	default:
		return []string{f.Part}
	case FaultNetwork:
		return []string{"network"}
	case FaultZombie:
		return []string{f.Part, "network"}
	case FaultStorm:
		if f.Part != "gateway" {
			return []string{"network"}
		}
		return []string{f.Part}
	case FaultSlow:
		return []string{"gateway", "network"}
	case FaultFull:
		return []string{f.Part, "history"} // a SQLite file belongs to the history service
	case FaultPower:
		return []string{everything}
	}
}
