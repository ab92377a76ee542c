package admincli_test

import (
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/certs/certstest"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/services/standalone/admincli"
)

func flags(cfg certs.Config) []string {
	return []string{"--tls.cert-file", cfg.CertFile, "--tls.key-file", cfg.KeyFile, "--tls.ca-file", cfg.CAFile}
}

func TestMutualTLSNamesWhatIsWrong(t *testing.T) {
	ca := certstest.New(t)
	w := answering(&adminv1.DropDeadLetterResponse{})
	address := serve(t, w, func(cfg *rpc.ServerConfig) { cfg.TLS = ca.Issue(t.TempDir(), "runnel-delivery") })
	operator := ca.Issue(t.TempDir(), "runnel-admin")
	drop := func(extra ...string) result {
		return run(t, 0, append([]string{"--address", address, "dead-letters", "drop", "x", "--yes"}, extra...)...)
	}
	require.Equal(t, result{out: "dropped x\n"}, drop(flags(operator)...))

	for name, c := range map[string]struct {
		flags []string
		want  []string
	}{
		"no certificate":    {nil, []string{"no server answers", "The worker requires TLS", "--tls.cert-file"}},
		"another role":      {flags(ca.Issue(t.TempDir(), "runnel-gateway")), []string{"refused: runnel-gateway may not", "runnel-admin", "cert.pem"}},
		"expired":           {flags(ca.IssueFor(-time.Minute, t.TempDir(), "runnel-admin")), []string{"it expired on"}},
		"another authority": {flags(certstest.New(t).Issue(t.TempDir(), "runnel-admin")), []string{"no server answers", "--tls.ca-file"}},
		"another name":      {append(flags(operator), "--tls.server-name", "runnel-elsewhere"), []string{"no server answers", "runnel-elsewhere (--tls.server-name)"}},
		"half of it":        {flags(operator)[:4], []string{"needs all of cert-file, key-file and ca-file"}},
	} {
		w.asked = nil
		got := drop(c.flags...)
		require.Equal(t, admincli.ExitFailed, got.code, name)
		for _, want := range c.want {
			require.Contains(t, got.err, want, name)
		}
		require.Empty(t, w.asked, name)
	}

	plain := serve(t, answering(&adminv1.DropDeadLetterResponse{}))
	got := run(t, 0, append([]string{"--address", plain, "dead-letters", "drop", "x", "--yes"}, flags(operator)...)...)
	require.Equal(t, admincli.ExitFailed, got.code)
	require.Contains(t, got.err, "The worker does not use TLS")
}

// closed returns an address on which nothing listens.
func closed(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// Each address has its own error and its own advice, in whatever order they are tried.
func TestEachAddressIsBlamedForItsOwnFault(t *testing.T) {
	ca := certstest.New(t)
	operator := flags(ca.Issue(t.TempDir(), "runnel-admin"))
	elsewhere := serve(t, answering(&adminv1.DropDeadLetterResponse{}), func(cfg *rpc.ServerConfig) { cfg.TLS = ca.Issue(t.TempDir(), "runnel-history") })
	page := httptest.NewServer(http.NotFoundHandler())
	defer page.Close()
	nothing, status := closed(t), page.Listener.Addr().String()
	const refused, isHTTP = "nothing listens there", "an HTTP server answers there"
	for name, c := range map[string]struct {
		flags   []string
		reasons map[string]string // by address
	}{
		"a closed port and another role": {operator, map[string]string{nothing: refused, elsewhere: "runnel-delivery"}},
		"a closed port and the page":     {operator, map[string]string{nothing: refused, status: isHTTP}},
		"the page, without TLS":          {nil, map[string]string{nothing: refused, status: isHTTP}},
		"a server that requires TLS":     {nil, map[string]string{nothing: refused, elsewhere: "TLS"}},
	} {
		addresses := slices.Sorted(maps.Keys(c.reasons))
		for range 2 {
			slices.Reverse(addresses)
			got := run(t, 0, append([]string{"--address", strings.Join(addresses, ","), "status"}, c.flags...)...)
			require.Equal(t, admincli.ExitFailed, got.code, name)
			for address, reason := range c.reasons {
				require.Regexp(t, `\n  `+regexp.QuoteMeta(address)+`: [^\n]*`+regexp.QuoteMeta(reason), got.err, name)
			}
			require.Equal(t, 1, strings.Count(got.err, refused), name)
		}
	}
	got := run(t, 0, "--address", status, "status")
	require.Contains(t, got.err, "--admin.listen")
}
