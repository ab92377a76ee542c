package torture

import (
	"bytes"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// programs are where the two versions of these tests would lie.
func programs() (binaries [2]launch.Binaries) {
	for version, name := range []string{"present", "next"} {
		binaries[version] = launch.Binaries{}
		for _, program := range mixed {
			binaries[version][program] = name + "/" + program
		}
	}
	return binaries
}

func mixing(seed uint64) (*versions, map[string]*launch.Process) {
	processes, parts := map[string]*launch.Process{}, []launch.Part(nil)
	for _, name := range clusterParts {
		p := &launch.Process{Command: launch.Command{Name: name, Path: "present/" + mixed[kindOf(name)]}}
		processes[name], parts = p, append(parts, p)
	}
	return newVersions(parts, programs(), seed, func(string, ...any) {}), processes
}

func TestFromTheFirstRestartOnBothVersionsRun(t *testing.T) {
	for seed := range uint64(50) {
		v, processes := mixing(seed)
		order := seeded(seed)
		for range 100 {
			part := pick(order, clusterParts...)
			first := mixed[kindOf(part)] != "" && v.summary().Next[kindOf(part)] == 0
			v.choose(processes[part])
			running := map[string]bool{}
			for name, p := range processes {
				if program := mixed[kindOf(name)]; program != "" {
					running[p.Path[:len(p.Path)-len(program)]] = true
				}
			}
			if first && v.summary().Present[kindOf(part)] == 2 {
				require.Equal(t, "next/"+mixed[kindOf(part)], processes[part].Path, "the first of a kind")
			}
			require.True(t, v.summary().Changes == 0 || len(running) == 2, "seed %d after %s: only %v", seed, part, running)
		}
		report := v.summary()
		require.Greater(t, report.Changes, 10)
		for kind := range maps.Keys(mixed) {
			require.Positive(t, report.Next[kind], kind)
			require.Greater(t, report.Present[kind], 2, "more than the first starts: %s", kind)
		}
		require.Equal(t, "present/", processes["postgres"].Path, "what has one version only stays as it is")
	}
}

func TestASeedGivesTheSameVersions(t *testing.T) {
	paths := func(seed uint64) (all []string) {
		v, processes := mixing(seed)
		for range 20 {
			for _, part := range clusterParts {
				v.choose(processes[part])
				all = append(all, processes[part].Path)
			}
		}
		return all
	}
	first, again := paths(4), paths(4)
	require.Equal(t, first, again)
	require.NotEqual(t, first, paths(5))
}

func TestARunThatMixedNothingIsRed(t *testing.T) {
	v, processes := mixing(1)
	v.choose(processes["nats-0"])
	found := v.check(t.Context(), nil)
	require.Len(t, found, 1)
	require.Equal(t, "mix", found[0].Invariant)
	var none *versions
	none.choose(processes["gateway-0"])
	require.Empty(t, none.check(t.Context(), nil))
	require.Nil(t, none.summary())
}

func TestLevelsAreThoseOfTheVersions(t *testing.T) {
	v, processes := mixing(1)
	v.choose(processes["gateway-1"])
	require.Equal(t, map[string]int{
		levelKey("gateway", levelOf(present)): 1, levelKey("gateway", levelOf(next)): 1, levelKey("delivery", levelOf(present)): 2,
	}, v.levels())
	require.NotEqual(t, levelOf(present), levelOf(next))
}

func TestAFieldOfTheNextVersionIsNotCompared(t *testing.T) {
	with, without := encoded(hinted("hello")), encoded(message("hello"))
	require.NotEqual(t, with, without)
	require.True(t, bytes.HasSuffix(with, []byte("loud")), "%x", with)
	require.Equal(t, understood(without), understood(with))
	require.Equal(t, understood(with), content(hinted("hello")))
	require.NotEqual(t, understood(with), content(message("another")))
}
