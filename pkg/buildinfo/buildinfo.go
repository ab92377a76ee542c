// Package buildinfo describes the build of a program: the version, the commit and its date. The linker stamps releases,
// see scripts/stamp.sh. For other builds, the information comes from the go command.
package buildinfo

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// The linker sets these variables with -X. They are empty in a build that is not stamped.
var (
	version  string //nolint:gochecknoglobals // set by the linker
	commit   string //nolint:gochecknoglobals // set by the linker
	date     string //nolint:gochecknoglobals // set by the linker
	modified string //nolint:gochecknoglobals // set by the linker; not empty if the source differs from the commit
)

const (
	// devel is the version of an unstamped build from a working copy.
	devel = "devel"
	// shortCommit is the length of the commit in a Version.
	shortCommit = 12
)

// Info describes a build. A field with its zero value is not known.
type Info struct {
	// Release is the version of the source, such as 0.1.0, or devel.
	Release string
	// Commit is the commit of the source. Date is the time of the commit, in RFC 3339.
	Commit, Date string
	// Modified is true if the source differed from the commit.
	Modified bool
	// Go is the version of the compiler.
	Go string
}

// Read returns the description of this program's build.
func Read() Info {
	recorded, _ := debug.ReadBuildInfo()
	return read(Info{Release: version, Commit: commit, Date: date, Modified: modified != ""}, recorded)
}

// read adds the data that the go command has recorded to the stamped data. recorded may be nil.
func read(stamped Info, recorded *debug.BuildInfo) Info {
	i := stamped
	i.Go = runtime.Version()
	if recorded != nil && i.Commit == "" {
		for _, setting := range recorded.Settings {
			switch setting.Key {
			case "vcs.revision":
				i.Commit = setting.Value
			case "vcs.time":
				i.Date = setting.Value
			case "vcs.modified":
				i.Modified = setting.Value == "true"
			}
		}
	}
	if recorded != nil && i.Release == "" && recorded.Main.Version != "(devel)" {
		i.Release = strings.TrimSuffix(strings.TrimPrefix(recorded.Main.Version, "v"), "+dirty") // the program was installed by go install module@version
	}
	i.Release = cmp.Or(i.Release, devel)
	return i
}

// Version identifies the build in one word, such as 0.1.0. For a source with changes it is, for example,
// 0.1.0-1a2b3c4d5e6f+modified.
func (i Info) Version() string {
	word := i.Release
	if i.Commit != "" && (i.Modified || i.Release == devel) {
		word += "-" + i.Commit[:min(shortCommit, len(i.Commit))]
	}
	if i.Modified {
		word += "+modified"
	}
	return word
}

// String returns the line that --version prints.
func (i Info) String() string {
	text := i.Release
	if i.Commit != "" {
		text += ", commit " + i.Commit
	}
	if i.Modified {
		text += " with changes"
	}
	if i.Date != "" {
		text += ", " + i.Date
	}
	return text + ", " + i.Go
}

// Collector returns the metric runnel_build_info. Its value is 1, and its labels describe the build.
func Collector() prometheus.Collector {
	i := Read()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "runnel_build_info", Help: "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": i.Version(), "commit": i.Commit, "date": i.Date, "go": i.Go},
	})
	gauge.Set(1)
	return gauge
}
