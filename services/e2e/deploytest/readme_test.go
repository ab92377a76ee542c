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

// Everything that README.md and deploy/README.md name exists: the tests that prove their claims, and the targets and files.
func TestTheReadmesNameWhatExists(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	tests := tests(t, root)
	makefile := read(t, filepath.Join(root, "Makefile"))
	for page, least := range map[string]int{"README.md": 14, "deploy/README.md": 30} {
		t.Run(page, func(t *testing.T) {
			text := read(t, filepath.Join(root, page))
			named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(text, -1)
			require.Greater(t, len(named), least)
			for _, match := range named {
				require.Contains(t, tests, match[1], "a claim rests on a test that does not exist")
			}
			for _, match := range regexp.MustCompile("`make ([a-z0-9-]+)").FindAllStringSubmatch(text, -1) {
				require.Regexp(t, `(?m)^`+regexp.QuoteMeta(match[1])+`:`, makefile)
			}
			for _, match := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(text, -1) {
				if !strings.Contains(match[1], "://") {
					require.True(t, exists(filepath.Join(root, filepath.Dir(page), match[1])), "a link leads to %s", match[1])
				}
			}
			for _, match := range regexp.MustCompile(`(?:deploy|services)/[\w./-]+`).FindAllString(text, -1) {
				path := strings.TrimSuffix(match, ".")
				switch {
				case strings.HasPrefix(path, "deploy/runnel-"): // a Deployment, for kubectl
				case strings.HasPrefix(path, "deploy/secrets/"): // the Secrets that deploy/secrets.sh makes
				default:
					require.True(t, exists(filepath.Join(root, path)), path)
				}
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
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
