package torture

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/skew"
)

// mixed contains the program of each kind of part that may change its version.
var mixed = map[string]string{"gateway": launch.Gateway, "delivery": launch.Delivery, "history": launch.History}

// VersionReport describes the mix of versions in a run.
type VersionReport struct {
	// Present and Next count the starts of parts by version and kind of part. The first start of a part is always of the
	// present version.
	Present map[string]int `json:"starts_of_present"`
	Next    map[string]int `json:"starts_of_next"`
	// Changes is the number of restarts with another version than before.
	Changes int `json:"version_changes"`
	// Hinted is the number of committed commands with a field that only the next version knows.
	Hinted int `json:"commands_with_a_new_field"`
}

// versions decides the version with which a part is restarted. All parts start with the present version, because the first
// history service sets the level of the installation. From the first restart on, both versions run:
//
//   - the first part of a kind that is restarted becomes the next version;
//   - after that the choice is random; each part has its own random source, which the seed determines;
//   - a choice that would leave all parts at one version is reversed.
//
// A nil *versions changes nothing.
type versions struct {
	binaries [2]launch.Binaries // the present and the next version
	say      func(format string, args ...any)

	mu     sync.Mutex
	random map[string]*rand.Rand // by part
	is     map[string]int        // index in binaries of each part's version
	report VersionReport
}

const (
	present = iota
	next
)

func newVersions(parts []launch.Part, binaries [2]launch.Binaries, seed uint64, say func(string, ...any)) *versions {
	v := &versions{
		binaries: binaries, say: say, random: map[string]*rand.Rand{}, is: map[string]int{},
		report: VersionReport{Present: map[string]int{}, Next: map[string]int{}},
	}
	for n, part := range parts {
		if kind := kindOf(part.Name()); mixed[kind] != "" {
			v.random[part.Name()] = rand.New(rand.NewPCG(seed, 6000+uint64(n)))
			v.is[part.Name()] = present
			v.report.Present[kind]++
		}
	}
	return v
}

// kindOf returns the kind of a part: "gateway" for gateway-0.
func kindOf(part string) string {
	kind, _, _ := strings.Cut(part, "-")
	return kind
}

// restart starts a part again.
func (v *versions) restart(ctx context.Context, part launch.Part) error {
	v.choose(part)
	return part.Restart(ctx)
}

// choose chooses the version of a part that has ended.
func (v *versions) choose(part launch.Part) {
	process, ok := part.(*launch.Process)
	if v == nil || !ok || mixed[kindOf(part.Name())] == "" {
		return
	}
	version, changed := v.decide(part.Name())
	process.Path = v.binaries[version][mixed[kindOf(part.Name())]]
	if changed {
		v.say("  %s starts as the %s version", part.Name(), [2]string{"present", "next"}[version])
	}
}

func (v *versions) decide(part string) (version int, changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	kind, before := kindOf(part), v.is[part]
	version = v.random[part].IntN(2)
	if v.report.Next[kind] == 0 {
		version = next
	}
	v.is[part] = version
	if len(slices.Compact(slices.Sorted(maps.Values(v.is)))) == 1 {
		version = 1 - version
		v.is[part] = version
	}
	if version == next {
		v.report.Next[kind]++
	} else {
		v.report.Present[kind]++
	}
	if changed = version != before; changed {
		v.report.Changes++
	}
	return version, changed
}

// check is called after all faults. It reports that versions were not mixed as intended: no part changed its version, or
// a part reports another version than the one with which it was started.
func (v *versions) check(ctx context.Context, workers []*launch.Process) []Violation {
	if v == nil {
		return nil
	}
	if v.summary().Changes == 0 {
		return []Violation{violation("mix", "versions were to be mixed, and no part changed its version: nothing was shown")}
	}
	want := v.levels()
	var got map[string]int
	var err error
	// A part that was replaced counts as live for a while.
	if until(ctx, func() bool {
		got, err = levels(ctx, workers)
		return err == nil && maps.Equal(want, got)
	}) {
		return nil
	}
	return []Violation{violation("mix", "gateways and workers were started as %v (by kind and protocol level), and say that they are %v (%v)", want, got, err)}
}

// levels returns the level of each gateway and worker, according to its version. Other services do not report their
// level.
func (v *versions) levels() map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	count := map[string]int{}
	for part, version := range v.is {
		if kind := kindOf(part); kind != "history" {
			count[levelKey(kind, levelOf(version))]++
		}
	}
	return count
}

// levels asks a worker for the levels of the live gateways and workers.
func levels(ctx context.Context, workers []*launch.Process) (map[string]int, error) {
	conn, err := grpc.NewClient("passthrough:///"+workers[0].Flag("rpc.listen"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", workers[0].Name(), err)
	}
	defer conn.Close()
	answer, err := adminv1.NewAdminServiceClient(conn).GetLevel(ctx, &adminv1.GetLevelRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask for the parts' levels: %w", err)
	}
	count := map[string]int{}
	for _, part := range answer.GetParts() {
		count[levelKey(part.GetService(), conversation.Level(part.GetLevel()))]++
	}
	return count, nil
}

func levelOf(version int) conversation.Level {
	if version == next {
		return skew.NextLevel()
	}
	return conversation.MaxLevel()
}

func levelKey(kind string, level conversation.Level) string {
	return fmt.Sprintf("%s at %d", kind, level)
}

// summary returns the report so far; nil if versions are not mixed.
func (v *versions) summary() *VersionReport {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	report := v.report
	report.Present, report.Next = maps.Clone(report.Present), maps.Clone(report.Next)
	return &report
}
