// Package memlimit sets the memory limit of Go's runtime from the memory limit of the process's cgroup, so that the garbage
// collector works harder before the kernel kills the process. Containers and systemd units with a memory limit need no setting of
// their own. The environment variable GOMEMLIMIT takes precedence.
package memlimit

import (
	"io/fs"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
)

// Percent is the share of the cgroup's limit that Go's runtime may use. The rest is for memory that the runtime does not count: the
// program itself, and the page cache of files that are being written.
const Percent = 90

// least is the lowest limit that is set, in bytes. With less, the collector would run without pause, and being killed is the
// clearer failure.
const least = 16 << 20

// Apply sets the limit, and logs it once. It changes nothing if GOMEMLIMIT is set, or the process has no memory limit. Call it once,
// at the start of the process.
func Apply(log *slog.Logger) { apply(os.Getenv("GOMEMLIMIT"), os.DirFS("/"), log) }

func apply(environment string, root fs.FS, log *slog.Logger) {
	limit, cgroup := choose(environment, root)
	if limit == 0 {
		return
	}
	debug.SetMemoryLimit(limit)
	log.Info("the memory limit of the Go runtime follows from the cgroup's", "limit_bytes", limit, "cgroup_limit_bytes", cgroup, "percent", Percent)
}

// choose returns the limit to set, 0 for none, and the cgroup's limit that it follows from.
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
