package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// build describes the programs to measure and their settings.
type build struct {
	// path is a checkout or a directory of programs. An empty path means the current workspace.
	path               string
	flags, environment []string
	binaries           launch.Binaries
	// known contains the flags of each program. Flags that a program does not know are not passed to it. If known is nil,
	// all flags are passed.
	known map[string]map[string]bool
}

// parseBuild parses a build from the command line: a path, then flags and NAME=VALUE pairs, separated by spaces.
func parseBuild(text string) (*build, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, errors.New("a build is empty: it begins with a path")
	}
	path, err := filepath.Abs(words[0])
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", words[0], err)
	}
	b := &build{path: path}
	for _, word := range words[1:] {
		switch name, _, found := strings.Cut(word, "="); {
		case strings.HasPrefix(word, "--"):
			b.flags = append(b.flags, word)
		case found && name != "":
			b.environment = append(b.environment, word)
		default:
			return nil, fmt.Errorf("build %s: %q is neither --flag=value nor NAME=VALUE", words[0], word)
		}
	}
	return b, nil
}

// prepare builds or finds the programs of a mode, and reads their flags.
func (b *build) prepare(ctx context.Context, mode string) (err error) {
	if isFile(filepath.Join(b.path, "go.work")) {
		sum := sha256.Sum256([]byte(b.path))
		dir := filepath.Join(os.TempDir(), "runnel-bench-bin-"+hex.EncodeToString(sum[:4]))
		b.binaries, err = launch.BuildFrom(ctx, b.path, dir, "", nil, programs(mode)...)
	} else {
		b.binaries, err = b.find(ctx, mode)
	}
	if err != nil {
		return err
	}
	b.known = map[string]map[string]bool{}
	for _, program := range programs(mode) {
		if program == launch.NATSServer {
			continue
		}
		if b.known[program], err = flagsOf(ctx, program, b.binaries[program]); err != nil {
			return err
		}
	}
	for _, flag := range b.flags {
		if !b.knowsAnywhere(flag) {
			return fmt.Errorf("no program of %s has the flag %s", b.path, flag)
		}
	}
	return nil
}

// find looks for the programs of a mode in a directory. If the NATS server is missing there, find uses the NATS server of
// the current workspace.
func (b *build) find(ctx context.Context, mode string) (launch.Binaries, error) {
	found := launch.Binaries{}
	for _, program := range programs(mode) {
		found[program] = filepath.Join(b.path, program)
		switch {
		case isFile(found[program]):
		case program == launch.NATSServer:
			own, err := launch.Build(ctx, filepath.Join(os.TempDir(), "runnel-bench-bin"), "", program)
			if err != nil {
				return nil, err
			}
			found[program] = own[program]
		default:
			return nil, fmt.Errorf("%s is neither a checkout (go.work) nor a directory with the program %s: %w", b.path, program, fs.ErrNotExist)
		}
	}
	return found, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// listedFlag matches a flag in the help of a program.
var listedFlag = regexp.MustCompile(`--(?:\[no-\])?([a-z0-9][a-z0-9.-]*)`)

// flagsOf reads the flags of a program from its help.
func flagsOf(ctx context.Context, program, path string) (map[string]bool, error) {
	args := []string{"--help"}
	if program == launch.Standalone {
		args = []string{"serve", "--help"}
	}
	help, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("read the flags of %s: %w", path, err)
	}
	flags := map[string]bool{}
	for _, match := range listedFlag.FindAllSubmatch(help, -1) {
		flags[string(match[1])] = true
	}
	return flags, nil
}

func (b *build) knows(program, flag string) bool {
	if b.known == nil {
		return true
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	return b.known[program][name] || b.known[program][strings.TrimPrefix(name, "no-")]
}

func (b *build) knowsAnywhere(flag string) bool {
	for program := range b.known {
		if b.knows(program, flag) {
			return true
		}
	}
	return false
}

// flagsWith returns the flags for each program: the raised limits, the extra flags, and the flags of the build.
func (b *build) flagsWith(extra []string) map[string][]string {
	flags := map[string][]string{}
	for _, program := range []string{launch.Standalone, launch.Gateway, launch.Delivery, launch.History} {
		wanted := slices.Concat(extra, b.flags)
		if program == launch.Standalone || program == launch.Gateway {
			wanted = slices.Concat(limits, wanted)
		}
		flags[program] = slices.DeleteFunc(wanted, func(flag string) bool { return !b.knows(program, flag) })
	}
	return flags
}
