// Package memlimit derives the memory limit of Go's runtime from the memory limit of the process's cgroup. The garbage
// collector then works harder before the kernel kills the process. Containers and systemd units with a memory limit
// therefore need no setting. The environment variable GOMEMLIMIT takes precedence.
package memlimit

import (
	"io/fs"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
)

// Percent is the share of the cgroup's limit that Go's runtime may use. The rest is for memory that the runtime does not
// count: the program's code, and the page cache of files that are being written.
const Percent = 90

// least is the lowest limit that Apply sets, in bytes. With a lower limit, the collector would run without pause. A
// process that is killed fails more clearly.
const least = 16 << 20

// Apply sets the runtime's limit and logs it once. It changes nothing if GOMEMLIMIT is set, or if the process has no
// memory limit. Call it once, at the start of the process.
func Apply(log *slog.Logger) { apply(os.Getenv("GOMEMLIMIT"), os.DirFS("/"), log) }

func apply(environment string, root fs.FS, log *slog.Logger) {
	limit, cgroup := choose(environment, root)
	if limit == 0 {
		return
	}
	debug.SetMemoryLimit(limit)
	log.Info("the memory limit of the Go runtime follows from the cgroup's", "limit_bytes", limit, "cgroup_limit_bytes", cgroup, "percent", Percent)
}

// choose returns the limit to set and the cgroup's limit from which it is derived. Both are 0 if no limit is to be set.
func choose(environment string, root fs.FS) (limit, cgroup int64) {
	if environment != "" { // the runtime has applied it already; "off" is a choice as well
		return 0, 0
	}
	cgroup = lowest(root)
	if cgroup == math.MaxInt64 {
		return 0, 0
	}
	return max(cgroup/100*Percent, least), cgroup
}
