package rpc

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// guard admits a call if the policy allows one of the caller's roles. Without TLS, callers have no roles. Then it admits
// every caller that can reach the server's address, except that operators' methods can be called only from this machine.
type guard struct {
	mutual  bool
	policy  Policy
	log     *slog.Logger
	refused *prometheus.CounterVec
}

func newGuard(mutual bool, tel *telemetry.Telemetry) *guard {
	return &guard{
		mutual: mutual, policy: own(), log: tel.Log,
		refused: register(tel.Registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "runnel_rpc_refused_total", Help: "Calls that were refused because the caller's certificate does not allow them.",
		}, []string{"method"})),
	}
}

// add creates the counters of a service's methods with the value 0, so that an alert sees the first refusal as a change.
func (g *guard) add(desc *grpc.ServiceDesc) {
	for _, m := range desc.Methods {
		g.refused.WithLabelValues(fullMethod(desc, m.MethodName))
	}
}

func (g *guard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := g.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (g *guard) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := g.check(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(service, stream)
}

func (g *guard) check(ctx context.Context, method string) error {
	if g.allows(ctx, method) {
		return nil
	}
	g.refused.WithLabelValues(method).Inc() // only registered methods reach this code
	caller := Caller(ctx)
	g.log.WarnContext(ctx, "a call was refused", "method", method, "caller", caller)
	return status.Errorf(codes.PermissionDenied, "%s may not call %s", caller, method)
}

func (g *guard) allows(ctx context.Context, method string) bool {
	if !g.mutual {
		return !strings.HasPrefix(method, adminService) || fromLoopback(ctx)
	}
	certificate := certificateOf(ctx)
	return certificate != nil && slices.ContainsFunc(g.policy[method], func(role Role) bool {
		return role == RoleAny || slices.Contains(certificate.DNSNames, string(role))
	})
}

// ActsAs reports whether the caller of a method has one of the given roles. Callers without a certificate have all roles:
// they are in this process, or the server was configured without TLS. It is for methods that several roles may call with
// different rights.
func ActsAs(ctx context.Context, roles ...Role) bool {
	certificate := certificateOf(ctx)
	return certificate == nil || slices.ContainsFunc(roles, func(role Role) bool { return slices.Contains(certificate.DNSNames, string(role)) })
}

// certificateOf returns the certificate with which the caller has authenticated; nil if there is none.
func certificateOf(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return nil
	}
	return info.State.VerifiedChains[0][0]
}

func fromLoopback(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	return ok && isLoopback(p.Addr)
}

func isLoopback(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// Caller identifies the caller for logs: by the names in the certificate, URIs first, or by the caller's address.
func Caller(ctx context.Context) string {
	if certificate := certificateOf(ctx); certificate != nil {
		names := make([]string, 0, len(certificate.URIs)+len(certificate.DNSNames))
		for _, uri := range certificate.URIs {
			names = append(names, uri.String())
		}
		return strings.Join(append(names, certificate.DNSNames...), ",")
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return "this process"
}
