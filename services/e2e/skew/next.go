package skew

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

var (
	//go:embed testdata/note.go.txt
	noteRules []byte
	//go:embed testdata/kinds_next.go.txt
	nextRow []byte
)

// proto contains the additions of the next version to the schema: each value is inserted after the line that is its key.
var proto = map[string]string{
	"    Erase erase = 10;\n":           "    // Put a note into the log.\n    Note note = 900;\n",
	"  EVENT_KIND_ERASED = 10;\n":       "  // A note.\n  EVENT_KIND_NOTED = 900;\n",
	"  uint64 reply_to = 2;\n":          "  // How the message should be shown; it changes nothing else, so it needs no level.\n  string hint = 4;\n",
	"package runnel.conversation.v1;\n": "\n// Note is a note.\nmessage Note {\n  // Text.\n  string text = 1;\n}\n",
}

// HintField is the number of the field that the next version adds to a message. It needs no level.
const HintField = 4

// NextLevel is the level of the next version.
func NextLevel() conversation.Level { return conversation.MaxLevel() + 1 }

// Next makes the source of the next version in dir, from the workspace that contains the current directory.
func Next(ctx context.Context, dir string) error {
	root, err := launch.Workspace(ctx)
	if err != nil {
		return err
	}
	buf := filepath.Join(root, ".tools", "bin", "buf")
	if _, err := os.Stat(buf); err != nil {
		return fmt.Errorf("the schema cannot be compiled, run `make tools` first: %w", err)
	}
	for _, part := range []string{"proto", "pkg", "services", "scripts", "go.work", "go.work.sum"} {
		if err := copyTree(filepath.Join(root, part), filepath.Join(dir, part)); err != nil {
			return err
		}
	}
	if err := os.Symlink(filepath.Join(root, ".tools"), filepath.Join(dir, ".tools")); err != nil {
		return err
	}
	schema := filepath.Join(dir, "proto/runnel/conversation/v1/conversation.proto")
	text, err := os.ReadFile(schema)
	if err != nil {
		return err
	}
	for after, added := range proto {
		before, rest, found := strings.Cut(string(text), after)
		if !found {
			return fmt.Errorf("the schema has no line %q to add to", after)
		}
		if strings.HasPrefix(after, "package") { // messages are appended to the end of the file
			text = []byte(string(text) + added)
			continue
		}
		text = []byte(before + after + added + rest)
	}
	rules := filepath.Join(dir, "pkg/conversation")
	err = errors.Join(
		os.WriteFile(schema, text, 0o600),
		os.WriteFile(filepath.Join(rules, "note.go"), noteRules, 0o600),
		os.WriteFile(filepath.Join(rules, "kinds_next.go"), bytes.ReplaceAll(nextRow, []byte("NEXT_LEVEL"), []byte(strconv.Itoa(int(NextLevel())))), 0o600),
	)
	if err != nil {
		return err
	}
	generate := exec.CommandContext(ctx, "scripts/generate.sh")
	generate.Dir, generate.Env = dir, append(os.Environ(), environment()...)
	if output, err := generate.CombinedOutput(); err != nil {
		return fmt.Errorf("generate the code of the next version: %w\n%s", err, bytes.TrimSpace(output))
	}
	return nil
}

// Build builds programs of the next version from its source into dir, with build tags separated by commas.
func Build(ctx context.Context, source, dir, tags string, programs ...string) (launch.Binaries, error) {
	return launch.BuildFrom(ctx, source, dir, tags, environment(), programs...)
}

// environment keeps the path of the source out of the compiled programs, so that the build cache is also valid for the
// next copy.
func environment() []string {
	return []string{"GOFLAGS=" + os.Getenv("GOFLAGS") + " -trimpath -buildvcs=false", "CGO_ENABLED=0"}
}

// copyTree copies a file, or a directory with its content.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, info.Mode().Perm())
	})
}
