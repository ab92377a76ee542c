package admincli

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/certs"
)

// probeTimeout is the time limit for probing one address.
const probeTimeout = 2 * time.Second

// diagnose lists, for each address, why no worker can be called there and what to do about it. gRPC reports only the
// error of the address that it tried last, which may not be the address that the operator means.
func (c *Command) diagnose(ctx context.Context, fallback string) string {
	var text strings.Builder
	for _, address := range c.Address {
		problem, hint := c.probe(ctx, strings.TrimPrefix(address, "dns:///"))
		if problem == "" { // the address is reachable by now, or only gRPC can find the problem
			problem = fallback
			hint = c.hint(fallback)
		}
		fmt.Fprintf(&text, "\n  %s: %s\n    %s", clean(address), clean(problem), hint)
	}
	return text.String()
}

// probe connects to an address like a caller of a worker. It returns the problem and advice; both are empty if there is
// no problem.
func (c *Command) probe(ctx context.Context, address string) (problem, hint string) {
	ctx, cancel := context.WithTimeout(ctx, min(probeTimeout, c.Timeout))
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there (connection refused)", "Is the worker running? Its gRPC port is 9001 by default, 9000 for standalone and in Kubernetes"
	case err != nil:
		return err.Error(), c.hint(err.Error())
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // fails only on a closed connection
	}
	if c.TLS.Empty() {
		return greeted(conn)
	}
	bundle, err := certs.Load(c.TLS.Config, certs.Options{Use: "rpc", Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		return err.Error(), "See the --tls flags"
	}
	config := bundle.ToService(c.TLS.ServerName)
	config.NextProtos = []string{"h2"} // as gRPC does
	secured := tls.Client(conn, config)
	err = secured.HandshakeContext(ctx)
	if err == nil {
		// The server checks the client's certificate after the handshake. If it refuses the certificate, that is the
		// first thing it sends.
		_, err = secured.Read(make([]byte, 1))
	}
	if header, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		if bytes.HasPrefix(header.RecordHeader[:], []byte("HTTP/")) {
			return anHTTPServer, itsHint
		}
		return "the server does not use TLS", c.hint("does not look like a TLS handshake")
	}
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		return err.Error(), c.hint("tls: " + err.Error())
	}
	return "", ""
}

const (
	anHTTPServer = "an HTTP server answers there, not a gRPC server"
	requiresTLS  = "The worker requires TLS: set --tls.cert-file, --tls.key-file and --tls.ca-file"
	itsHint      = "Is it the status page (--admin.listen), or the address for clients (--gateway.listen)? --address is what --rpc.listen is set to"
)

// greeted finds out what a server is from its answer to an HTTP/1 request. A gRPC server sends its HTTP/2 settings.
func greeted(conn net.Conn) (problem, hint string) {
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"); err != nil {
		return "", ""
	}
	begin := make([]byte, 5)
	_, err := io.ReadFull(conn, begin)
	switch {
	case bytes.Equal(begin, []byte("HTTP/")):
		return anHTTPServer, itsHint
	case begin[0] == 0x15 && begin[1] == 3: // a TLS alert
		return "the server requires TLS", requiresTLS
	case errors.Is(err, io.EOF):
		return "the server closed the connection at once, as one does that requires TLS", requiresTLS
	}
	return "", ""
}
