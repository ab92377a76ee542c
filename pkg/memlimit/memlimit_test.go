package memlimit

import (
	"io/fs"
	"log/slog"
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
)

const (
	v2Mount = "25 30 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 none rw,nsdelegate\n"
	v1Mount = "33 25 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup none rw,memory\n" +
		"34 25 0:30 / /sys/fs/cgroup/cpu rw,nosuid shared:10 - cgroup none rw,cpu,cpuacct\n"
)

// tree is a file system with these files, by path.
func tree(files map[string]string) fs.FS {
	made := fstest.MapFS{}
	for name, text := range files {
		made[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return made
}

func TestTheLowestLimitIsFound(t *testing.T) {
	const none = math.MaxInt64
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no cgroups": {map[string]string{}, none},
		"version 2, a container with a namespace of its own": {map[string]string{
			"proc/self/mountinfo": v2Mount, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n", "sys/fs/cgroup/memory.high": "max\n",
		}, 512 << 20},
		"version 2, no limit": {map[string]string{
			"proc/self/mountinfo": v2Mount, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n",
		}, none},
		"version 2, a systemd unit": {map[string]string{
			"proc/self/mountinfo": v2Mount, "proc/self/cgroup": "0::/system.slice/runnel.service\n",
			"sys/fs/cgroup/system.slice/runnel.service/memory.max": "1073741824\n",
		}, 1 << 30},
		"version 2, the processes are slowed down before they are killed": {map[string]string{
			"proc/self/mountinfo": v2Mount, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.high": "800\n",
		}, 800},
		"version 2, the limit of a cgroup above is lower": {map[string]string{
			"proc/self/mountinfo": v2Mount, "proc/self/cgroup": "0::/a/b/c\n", "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/b/c/memory.max": "2000\n",
		}, 1000},
		"version 2, the mount shows a part of the tree": {map[string]string{
			"proc/self/mountinfo": "25 30 0:26 /kube/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "proc/self/cgroup": "0::/kube/pod1/main\n",
			"sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/main/memory.max": "3000\n",
		}, 3000},
		"version 2, the cgroup is outside of what is visible": {map[string]string{
			"proc/self/mountinfo": "25 30 0:26 /kube/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "proc/self/cgroup": "0::/kube/pod2\n",
			"sys/fs/cgroup/memory.max": "5000\n",
		}, 5000},
		"version 2, the cgroup is above the namespace": {map[string]string{
			"proc/self/mountinfo": v2Mount, "proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/memory.max": "5000\n", "sys/fs/other/memory.max": "1",
		}, 5000},
		"version 1": {map[string]string{
			"proc/self/mountinfo": v1Mount, "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "268435456\n",
		}, 256 << 20},
		"version 1, a container that sees the host's names": {map[string]string{
			"proc/self/mountinfo":                        "33 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup none rw,memory\n",
			"proc/self/cgroup":                           "4:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
		}, 256 << 20},
		"version 1, no limit": {map[string]string{
			"proc/self/mountinfo": v1Mount, "proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, none},
		"both versions, memory belongs to 1": {map[string]string{
			"proc/self/mountinfo": v1Mount + "35 25 0:31 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n",
			"proc/self/cgroup":    "4:memory:/a\n0::/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "7000",
		}, 7000},
		"nonsense": {map[string]string{
			"proc/self/mountinfo": "x\n - \n1 2 3 4 5 - cgroup2\n" + v2Mount, "proc/self/cgroup": "\n0\n0::\n", "sys/fs/cgroup/memory.max": "-1 many\n",
		}, none},
	} {
		require.Equal(t, c.want, lowest(tree(c.files)), name)
	}
}

func limited(bytes string) fs.FS {
	return tree(map[string]string{"proc/self/mountinfo": v2Mount, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": bytes})
}

func TestTheLimitIsAShareOfTheCgroups(t *testing.T) {
	limit, cgroup := choose("", limited("1000000000"))
	require.EqualValues(t, 900_000_000, limit)
	require.EqualValues(t, 1_000_000_000, cgroup)
	limit, _ = choose("", limited("1000"))
	require.EqualValues(t, least, limit, "the collector must not run without pause")
	limit, _ = choose("", limited("max"))
	require.Zero(t, limit)
}

// The limit is set and logged, unless GOMEMLIMIT is in the environment or there is no limit.
func TestTheLimitIsSet(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	log := &telemetrytest.Log{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	for _, environment := range []string{"256MiB", "off"} {
		apply(environment, limited("100000000000"), logger)
	}
	apply("", limited("max"), logger)
	require.Equal(t, before, debug.SetMemoryLimit(-1))
	require.Empty(t, log.String())

	apply("", limited("100000000000"), logger)
	require.EqualValues(t, 90_000_000_000, debug.SetMemoryLimit(-1))
	require.Contains(t, log.String(), "limit_bytes=90000000000 cgroup_limit_bytes=100000000000 percent=90")
}
