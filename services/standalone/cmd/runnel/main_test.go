package main

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/settings"
)

func TestThePageLinkKeepsTheCodeInItsFragment(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080/#code=abc", "[::]:8080": "http://127.0.0.1:8080/#code=abc",
		"0.0.0.0:8080": "http://127.0.0.1:8080/#code=abc", "192.0.2.1:8080": "http://192.0.2.1:8080/#code=abc",
	} {
		link := banner{address: address, code: "abc"}.pageLink()
		require.Equal(t, want, link)
		u, err := url.Parse(link)
		require.NoError(t, err)
		require.NotContains(t, u.RequestURI(), "abc", "what a browser sends, and servers log")
	}
	require.Equal(t, "http://127.0.0.1:8080/", banner{address: "127.0.0.1:8080"}.pageLink(), "with authentication there is no code")
	require.Equal(t, "https://127.0.0.1:8443/", banner{address: "[::]:8443", tls: true}.pageLink())
}

func standardBanner(t *testing.T) banner {
	t.Helper()
	dataDir, err := filepath.Abs(defaultDataDir)
	require.NoError(t, err)
	return banner{
		program: "bin/runnel", version: "1.2.3", took: 412345 * time.Microsecond, dataDir: dataDir, address: "127.0.0.1:8080",
		admin: "127.0.0.1:9090", rpc: "127.0.0.1:9000", development: true, code: "abc",
	}
}

func TestTheBannerOfTheDefaultsNeedsNoFlags(t *testing.T) {
	text := standardBanner(t).String()
	require.Contains(t, text, "Runnel 1.2.3 is ready after 412ms.")
	for _, line := range []string{"bin/runnel chat alice --with bob", "bin/runnel chat bob --with alice", "bin/runnel token alice"} {
		require.Contains(t, text, " "+line+"\n")
	}
	require.Contains(t, text, "http://127.0.0.1:9090/ (also /metrics and /readyz)")
	require.Contains(t, text, "bin/runnel admin status ")
}

func TestTheBannerFollowsTheSettings(t *testing.T) {
	b := standardBanner(t)
	b.tls, b.mutual, b.adminToken = true, true, true
	b.address, b.admin, b.rpc, b.dataDir = "[::]:8443", "0.0.0.0:9191", "[::]:9100", "/srv/it's data"
	text := b.String()
	require.NotContains(t, text, "[::]")
	require.NotContains(t, text, "0.0.0.0")
	require.Contains(t, text, "https://127.0.0.1:8443/#code=abc")
	require.Contains(t, text, `chat alice --with bob --url wss://127.0.0.1:8443/v1/ws --data-dir '/srv/it'\''s data'`)
	require.Contains(t, text, `token alice --data-dir '/srv/it'\''s data'`)
	require.Contains(t, text, "http://127.0.0.1:9191/ (also /metrics and /readyz; the password is the admin token)")
	require.Contains(t, text, "admin --address 127.0.0.1:9100 --tls.cert-file CERT --tls.key-file KEY --tls.ca-file CA status")

	b.development, b.code, b.admin = false, "", ""
	text = b.String()
	for _, no := range []string{"code", "chat alice", "token alice", "Status page", "No authentication"} {
		require.NotContains(t, text, no)
	}
	require.Contains(t, text, "wss://127.0.0.1:8443/v1/ws, with tokens of the configured issuer")
}

// Every command in the banner is one that the program takes, and reaches the same server.
func TestTheCommandsOfTheBannerParse(t *testing.T) {
	b := standardBanner(t)
	b.address, b.rpc, b.dataDir = "[::]:8181", "[::]:9100", "/srv/data"
	commands := regexp.MustCompile(`bin/runnel (chat|token|admin) [^(\n]*`).FindAllString(b.String(), -1)
	require.Len(t, commands, 5) // one of them is the hint to --help
	for _, command := range commands {
		args := strings.Fields(command)[1:]
		if args[len(args)-1] == "--help" || strings.Contains(command, "--help") {
			continue
		}
		var c cli
		parser, err := settings.New("runnel", "", &c, kong.Writers(os.Stdout, os.Stderr))
		require.NoError(t, err)
		_, err = parser.Parse(args)
		require.NoError(t, err, command)
		switch args[0] {
		case "chat":
			require.Equal(t, "ws://127.0.0.1:8181/v1/ws", c.Chat.URL)
			require.Equal(t, "/srv/data", c.Chat.DataDir)
		case "token":
			require.Equal(t, "/srv/data", c.Token.DataDir)
		case "admin":
			require.Equal(t, []string{"127.0.0.1:9100"}, c.Admin.Address)
		}
	}
}
