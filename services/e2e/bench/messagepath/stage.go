package messagepath

import "strings"

// stage is a part of a message's path.
type stage int

// The stages, in the order in which a message first passes them.
const (
	stageLink stage = iota
	stageSession
	stageRooms
	stageCommands
	stageNATSClient
	stageNATSServer
	stageDelivery
	stageCursors
	stageRPC
	stageHistory
	stageBus
	stageOther
	stages // their number
)

// stageLoad is the load generator and this package; it is not counted.
const stageLoad stage = -1

var stageNames = [stages]string{
	stageLink:       "gateway: links (frames, outbox)",
	stageSession:    "gateway: sessions, requests, acknowledgements",
	stageRooms:      "gateway: rooms, fan-out",
	stageCommands:   "commands: publish, await the outcome (pkg/broker, pkg/commands)",
	stageNATSClient: "NATS client",
	stageNATSServer: "NATS server, JetStream",
	stageDelivery:   "delivery: read, plan, commit, publish",
	stageCursors:    "delivery: cursors, receipts",
	stageRPC:        "calls between parts (pkg/rpc, gRPC)",
	stageHistory:    "history, SQLite",
	stageBus:        "bus",
	stageOther:      "runtime, timers, other",
}

// own is the beginning of the import paths of this project.
const own = "github.com/runnelhq/runnel/"

// owners assigns packages to stages, by the beginning of a function's name; the first match counts. Packages that are not listed,
// such as the standard library, protobuf and pkg/conversation, work for their callers.
var owners = []struct {
	prefix string
	stage  stage
}{
	{own + "services/e2e/", stageLoad},
	{own + "services/gateway/link/", stageLink},
	{own + "services/gateway/wire", stageLink},
	{own + "services/gateway/room", stageRooms},
	{own + "services/gateway", stageSession},
	{own + "services/delivery/cursor", stageCursors},
	{own + "services/delivery", stageDelivery},
	{own + "services/history", stageHistory},
	{own + "pkg/broker", stageCommands},
	{own + "pkg/commands", stageCommands},
	{own + "pkg/bus", stageBus},
	{own + "pkg/rpc", stageRPC},
	{"google.golang.org/grpc", stageRPC},
	{"github.com/nats-io/nats%2ego", stageNATSClient}, // the linker escapes a dot in a package's last name
	{"github.com/nats-io/nats-server/", stageNATSServer},
	{"modernc.org/", stageHistory},
	{"database/sql", stageHistory},
}

// frame is a function of a call stack and the stage that it belongs to.
type frame struct {
	stage    stage
	function string
}

// place assigns a call stack, innermost function first, to the stage of the innermost function that belongs to one. Below a function of
// a library it names the function of this project that called the library. Without a stage it names the innermost function of this
// project, or the outermost of all, which is that of the goroutine.
func place(functions func(yield func(string) bool)) frame {
	found, named := frame{stageOther, "unknown"}, false
	for function := range functions {
		at, owned := stageOf(function)
		switch {
		case owned && strings.HasPrefix(function, own):
			if found.stage == stageOther {
				found.stage = at
			}
			found.function = short(function)
			return found
		case owned && found.stage == stageOther:
			found = frame{at, short(function)}
		case found.stage == stageOther && !named && !strings.HasPrefix(function, "runtime."):
			found.function, named = short(function), strings.HasPrefix(function, own)
		}
	}
	return found
}

// stageOf returns the stage of a function, if it belongs to one.
func stageOf(function string) (stage, bool) {
	for _, owner := range owners {
		if strings.HasPrefix(function, owner.prefix) {
			return owner.stage, true
		}
	}
	return stageOther, false
}

// short is the name of a function without the path of its package.
func short(function string) string {
	if slash := strings.LastIndexByte(function, '/'); slash >= 0 {
		function = function[slash+1:]
	}
	return function
}
