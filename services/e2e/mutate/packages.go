package mutate

// module is the prefix of every import path of the repository.
const module = "github.com/runnelhq/runnel/"

// Packages are the parts whose rules are pure: what they decide depends on nothing but what they are given.
var Packages = []string{
	"pkg/conversation",
	"pkg/client/internal/stream",
	"services/delivery/cursor",
	"services/delivery/dedupe",
	"services/delivery/partition/commit",
	"services/delivery/partition/plan",
	"services/delivery/partition/takeover",
	"services/gateway/admission",
	"services/gateway/page",
	"services/gateway/stretch",
}

// Goal is the part of the mutants that the tests of each package must notice.
const Goal = 0.9
