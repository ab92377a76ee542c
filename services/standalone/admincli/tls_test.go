package admincli_test

import (
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
