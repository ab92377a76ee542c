package watched_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/watched"
)

func replace(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func TestAReplacedFileIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "secret")
		replace(t, path, "one\n")
		reads, replaced, refused := 0, []string(nil), []error(nil)
		files, err := watched.Load(watched.Config[string]{
			Paths: []string{path},
			Read: func() (string, error) {
				reads++
				secret, err := watched.ReadSecret(path)
				if secret == "" && err == nil {
					err = errors.New("empty")
				}
				return secret, err
			},
			Accept:   func(s string) error { return map[bool]error{true: errors.New("early")}[s == "early"] },
			Replaced: func(s string) { replaced = append(replaced, s) },
			Refused:  func(err error) { refused = append(refused, err) },
		})
		require.NoError(t, err)
		require.Equal(t, "one", files.Current())

		replace(t, path, "two\r\n")
		require.Equal(t, "one", files.Current(), "looked at a moment ago")
		time.Sleep(time.Second)
		require.Equal(t, "two", files.Current())
		for range 3 {
			time.Sleep(time.Second)
			require.Equal(t, "two", files.Current())
		}
		require.Equal(t, 2, reads, "a file that did not change is not read")
		require.Equal(t, []string{"two"}, replaced)

		for _, bad := range []string{"", "early"} {
			refused = nil
			replace(t, path, bad)
			for range 3 {
				time.Sleep(time.Second)
				require.Equal(t, "two", files.Current(), "what was in force stays")
			}
			require.Len(t, refused, 1, "reported once")
		}
		require.NoError(t, os.Remove(path))
		time.Sleep(time.Second)
		require.Equal(t, "two", files.Current())
		replace(t, path, "three")
		time.Sleep(time.Second)
		require.Equal(t, "three", files.Current())
	})
}

func TestTheFirstContentMustBeGood(t *testing.T) {
	_, err := watched.Load(watched.Config[string]{Paths: []string{"/nowhere"}, Read: func() (string, error) { return "", nil }})
	require.ErrorIs(t, err, os.ErrNotExist)
	bad := errors.New("bad")
	_, err = watched.Load(watched.Config[string]{Read: func() (string, error) { return "", bad }})
	require.ErrorIs(t, err, bad)
	fixed, err := watched.Load(watched.Config[string]{Read: func() (string, error) { return "x", nil }})
	require.NoError(t, err)
	require.Equal(t, "x", fixed.Current())
}

func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for content, want := range map[string]string{"s": "s", "s\n": "s", "s\r\n": "s", "s\n\n": "s\n", "a b": "a b"} {
		replace(t, path, content)
		secret, err := watched.ReadSecret(path)
		require.NoError(t, err)
		require.Equal(t, want, secret)
	}
	replace(t, path, strings.Repeat("x", 64<<10+1))
	_, err := watched.ReadSecret(path)
	require.ErrorContains(t, err, "too large")
}
