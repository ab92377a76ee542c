package mutate

// module is the prefix of every import path of the repository.
const module = "github.com/runnelhq/runnel/"

// Packages are the packages with pure rules: their results depend only on their arguments.
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

// Goal is the share of mutants that the tests of each package must notice.
const Goal = 0.9
