package admincli

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// explainError turns a gRPC error into an error that tells an operator what to do next. Errors of the commands themselves
// are returned unchanged, because they already do.
func (c *Command) explainError(err error) error {
	var own *outcome
	if err == nil || errors.As(err, &own) {
		return err
	}
	s, ok := grpcstatus.FromError(err)
	if !ok {
		return err
	}
	where, message := strings.Join(c.Address, " or "), clean(s.Message())
	switch s.Code() {
	case codes.Unavailable:
		if answered(message) {
			return failed("the worker at %s answers, but a service that it depends on is unavailable: %s\nSee /readyz on its admin port, and on that of history", where, message)
		}
		return failed("no server answers at %s:%s", where, c.diagnose(context.Background(), message))
	case codes.PermissionDenied, codes.Unauthenticated:
		return failed("refused: %s\n%s", message, c.certificateHint())
	case codes.Unimplemented:
		return failed("the server at %s does not support this command: %s\nIs it a delivery worker of this version? Otherwise set another --address", where, message)
	case codes.DeadlineExceeded:
		return failed("no answer within %s: %s\nWait longer with --timeout; \"runnel admin status\" lists the instances that do not answer", c.Timeout, message)
	case codes.ResourceExhausted:
		return failed("the worker is busy: %s\nTry again in a moment", message)
	default:
		return failed("%s", message)
	}
}

// answered reports whether an error message is a worker's answer that one of its dependencies is unavailable. If the
// worker itself cannot be reached, the message comes from gRPC and contains one of these words.
func answered(message string) bool {
	for _, words := range []string{"connection", "transport", "name resolver", "produced zero addresses", "error reading"} {
		if strings.Contains(message, words) {
			return false
		}
	}
	return true
}

// hint returns advice for an unreachable server.
func (c *Command) hint(message string) string {
	tls := strings.Contains(message, "tls: ") || strings.Contains(message, "x509: ") || strings.Contains(message, "handshake")
	switch {
	case strings.Contains(message, "does not look like a TLS handshake"):
		return "The worker does not use TLS: leave out the --tls flags, or set TLS up between the services (rpc.tls)"
	case tls && !c.TLS.Empty():
		return "Did the authority in --tls.ca-file issue the worker's certificate, and is " + c.TLS.ServerName +
			" (--tls.server-name) one of its names? Was --tls.cert-file issued by the worker's authority, and is it still valid?"
	case tls, c.TLS.Empty() && strings.Contains(message, "error reading server preface"):
		return requiresTLS
	case !c.TLS.Empty():
		return "Is --address the gRPC address of a delivery worker (9001 by default, 9000 for standalone and in Kubernetes), is it running, and with TLS?"
	default:
		return "Is --address the gRPC address of a delivery worker (9001 by default, 9000 for standalone and in Kubernetes), and is it running?"
	}
}

func (c *Command) certificateHint() string {
	if c.TLS.Empty() {
		return "Without TLS, workers answer only operators on their own machine: run this there, or set up TLS between the services"
	}
	return "Operators need a certificate with the DNS name runnel-admin; the certificate has " + c.TLS.CertFile
}
