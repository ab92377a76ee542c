package deploytest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Everything that deploy/README.md names exists: the tests that prove its claims, and the targets and files for operators.
func TestTheReadmeNamesWhatExists(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	page := read(t, filepath.Join(root, "deploy", "README.md"))

	tests := tests(t, root)
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(page, -1)
	require.Greater(t, len(named), 30)
	for _, match := range named {
		require.Contains(t, tests, match[1], "a claim rests on a test that does not exist")
	}

	makefile := read(t, filepath.Join(root, "Makefile"))
	for _, match := range regexp.MustCompile("`make ([a-z0-9-]+)").FindAllStringSubmatch(page, -1) {
		require.Regexp(t, `(?m)^`+regexp.QuoteMeta(match[1])+`:`, makefile)
	}

	for _, match := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(page, -1) {
		require.FileExists(t, filepath.Join(root, "deploy", match[1]))
	}
	for _, match := range regexp.MustCompile(`(?:deploy|services)/[\w./-]+`).FindAllString(page, -1) {
		path := strings.TrimSuffix(match, ".")
		switch {
		case strings.HasPrefix(path, "deploy/runnel-"): // a Deployment, for kubectl
		case strings.HasPrefix(path, "deploy/secrets/"): // the Secrets that deploy/secrets.sh makes
		default:
			_, err := os.Stat(filepath.Join(root, path))
			require.NoError(t, err)
		}
	}
}

// tests are the names of all tests of the project.
func tests(t *testing.T, root string) map[string]struct{} {
	t.Helper()
	names := map[string]struct{}{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root:
			return filepath.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			for _, match := range declared.FindAllStringSubmatch(read(t, path), -1) {
				names[match[1]] = struct{}{}
			}
		}
		return nil
	}))
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}
