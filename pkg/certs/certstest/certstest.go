// Package certstest makes real certificates for tests. No program imports it.
package certstest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/certs/devca"
)

// CA is the certificate authority of one test.
type CA struct {
	tb testing.TB
	ca *devca.CA
}

// New makes an authority. Only programs that a test configures accordingly trust it.
func New(tb testing.TB) CA {
	tb.Helper()
	ca, err := devca.New(tb.Name())
	require.NoError(tb, err)
	return CA{tb, ca}
}

// Issue writes a certificate, its key and the authority to dir. The certificate is for these names (DNS names, IP
// addresses, URIs) and valid for an hour. A second call replaces the files.
func (c CA) Issue(dir string, names ...string) certs.Config {
	c.tb.Helper()
	return c.IssueFor(time.Hour, dir, names...)
}

// IssueFor is Issue with a lifetime; a negative lifetime makes an expired certificate.
func (c CA) IssueFor(lifetime time.Duration, dir string, names ...string) certs.Config {
	c.tb.Helper()
	cfg, err := c.ca.Issue(dir, devca.Request{Names: names, Lifetime: lifetime})
	require.NoError(c.tb, err)
	return cfg
}
