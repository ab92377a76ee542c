package rpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/certs/certstest"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// house contains a history service with mutual TLS, and an authority that makes certificates for callers.
type house struct {
	ca      certstest.CA
	tel     *telemetry.Telemetry
	log     *lines
	addr    string
	files   string // the directory with the server's certificate
	callers chan string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{ca: certstest.New(t), tel: telemetry.Discard(), log: &lines{}, files: t.TempDir(), callers: make(chan string, 1)}
	h.tel.Log = slog.New(slog.NewTextHandler(h.log, nil))
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0", TLS: h.ca.Issue(h.files, string(rpc.RoleHistory))}, h.tel)
	require.NoError(t, err)
	registerHistory(server, &history{
		append: func(ctx context.Context, _ *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
			h.callers <- rpc.Caller(ctx)
			return &historyv1.AppendResponse{}, nil
		},
	})
	registerAdmin(server, adminv1.UnimplementedAdminServiceServer{})
	h.addr = server.Addr()
	stop := serve(t, server)
	t.Cleanup(func() { require.NoError(t, stop()) })
	return h
}

// as connects with a certificate that contains these names.
func (h *house) as(t *testing.T, names ...string) *grpc.ClientConn {
	t.Helper()
	return h.with(t, h.ca.Issue(t.TempDir(), names...))
}

func (h *house) with(t *testing.T, files certs.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(h.addr, rpc.ClientConfig{Service: rpc.RoleHistory, TLS: files}, telemetry.Discard())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

func appendTo(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	_, err := historyv1.NewHistoryServiceClient(conn).Append(t.Context(), batch(1))
	return err
}

func TestRolesDecideWhoMayCall(t *testing.T) {
	h := newHouse(t)
	require.NoError(t, appendTo(t, h.as(t, "runnel-delivery", "spiffe://house/delivery")))
	require.Equal(t, "spiffe://house/delivery,runnel-delivery", <-h.callers)
	require.NoError(t, appendTo(t, h.as(t, "delivery-0.runnel.svc", "runnel-delivery")), "among other names")
	<-h.callers

	for _, names := range [][]string{{"runnel-gateway"}, {"runnel-history"}, {"runnel-admin"}, {"runnel-service"}, {"runnel-delivery.example.com"}, {"10.0.0.1"}} {
		conn := h.as(t, names...)
		err := appendTo(t, conn)
		require.Equal(t, codes.PermissionDenied, status.Code(err), names)
		_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
		require.NoError(t, err, "everybody of the house may ask for health")
	}
	require.Empty(t, h.callers)
	require.Contains(t, h.log.String(), "runnel-gateway")
	require.Equal(t, 6, strings.Count(h.log.String(), "a call was refused"))
	require.Equal(t, 6, counted(t, h.tel.Registry)["/runnel.history.v1.HistoryService/Append PermissionDenied"])

	_, err := adminv1.NewAdminServiceClient(h.as(t, "runnel-delivery")).GetStatus(t.Context(), &adminv1.GetStatusRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "though it comes from this machine")
	_, err = adminv1.NewAdminServiceClient(h.as(t, "runnel-admin")).GetStatus(t.Context(), &adminv1.GetStatusRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err), "it got through")
}

func TestReflectionIsForOperators(t *testing.T) {
	h := newHouse(t)
	ask := func(role string) error {
		stream, err := reflectionv1.NewServerReflectionClient(h.as(t, role)).ServerReflectionInfo(t.Context())
		require.NoError(t, err)
		err = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
		require.True(t, err == nil || errors.Is(err, io.EOF))
		_, err = stream.Recv()
		require.NoError(t, stream.CloseSend())
		return err
	}
	require.NoError(t, ask("runnel-admin"))
	require.Equal(t, codes.PermissionDenied, status.Code(ask("runnel-gateway")))
}

// Strangers cannot make any call.
func TestStrangersAreRefused(t *testing.T) {
	h := newHouse(t)
	plain, err := grpc.NewClient(h.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer plain.Close()
	require.Equal(t, codes.Unavailable, status.Code(appendTo(t, plain)), "no TLS")

	other := certstest.New(t)
	files := other.Issue(t.TempDir(), "runnel-delivery")
	require.ErrorContains(t, appendTo(t, h.with(t, files)), "unknown authority", "it does not believe the server")
	files.CAFile = h.ca.Issue(t.TempDir(), "x").CAFile
	require.Equal(t, codes.Unavailable, status.Code(appendTo(t, h.with(t, files))), "nor the server it")
	require.Empty(t, h.callers)

	// A server without the right certificate receives no call.
	conn, err := rpc.Dial(h.addr, rpc.ClientConfig{Service: rpc.RoleDelivery, TLS: h.ca.Issue(t.TempDir(), "runnel-gateway")}, telemetry.Discard())
	require.NoError(t, err)
	defer conn.Close()
	require.ErrorContains(t, appendTo(t, conn), "runnel-delivery")
}

// A connection made after the files changed uses the new certificates on both sides. An existing connection continues.
func TestCertificatesAreReplacedWhileServing(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	before := h.with(t, h.ca.Issue(dir, "runnel-delivery", "before"))
	require.NoError(t, appendTo(t, before))
	require.Equal(t, "runnel-delivery,before", <-h.callers)

	h.ca = certstest.New(t) // all authorities are new, so the old and the new side do not trust each other
	h.ca.Issue(h.files, string(rpc.RoleHistory))
	files := h.ca.Issue(dir, "runnel-delivery", "after")
	require.NoError(t, appendTo(t, before))
	require.Equal(t, "runnel-delivery,before", <-h.callers)
	after := h.with(t, files)
	require.Eventually(t, func() bool { return appendTo(t, after) == nil }, time.Minute, 20*time.Millisecond, "the files are looked at once a second")
	require.Equal(t, "runnel-delivery,after", <-h.callers)
}

func TestWithoutTLSOnlyThisMachineIsServed(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		_, err := rpc.NewServer(rpc.ServerConfig{Listen: listen}, telemetry.Discard())
		require.ErrorContains(t, err, "rpc.plaintext", "it says what to do")
		server, err := rpc.NewServer(rpc.ServerConfig{Listen: listen, Plaintext: true}, telemetry.Discard())
		require.NoError(t, err)
		require.NoError(t, serve(t, server)())
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "0.0.0.0:0", TLS: certstest.New(t).Issue(t.TempDir(), "runnel-history")}, telemetry.Discard())
	require.NoError(t, err)
	require.NoError(t, serve(t, server)())

	_, err = rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0", TLS: certs.Config{CertFile: "cert.pem"}}, telemetry.Discard())
	require.ErrorContains(t, err, "ca-file")
	_, err = rpc.Dial("127.0.0.1:1", rpc.ClientConfig{TLS: certstest.New(t).Issue(t.TempDir(), "x")}, telemetry.Discard())
	require.ErrorContains(t, err, "role")
}

// Without certificates, every caller on this machine counts as an operator.
func TestWithoutTLSOperatorsAreOnThisMachine(t *testing.T) {
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "0.0.0.0:0", Plaintext: true}, telemetry.Discard())
	require.NoError(t, err)
	registerAdmin(server, adminv1.UnimplementedAdminServiceServer{})
	registerHistory(server, &history{append: func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
		return &historyv1.AppendResponse{}, nil
	}})
	stop := serve(t, server)
	defer func() { require.NoError(t, stop()) }()
	_, port, err := net.SplitHostPort(server.Addr())
	require.NoError(t, err)
	ask := func(host string) (operator, anybody codes.Code) {
		conn, err := rpc.Dial(net.JoinHostPort(host, port), rpc.ClientConfig{Service: rpc.RoleDelivery}, telemetry.Discard())
		require.NoError(t, err)
		defer conn.Close()
		_, err = adminv1.NewAdminServiceClient(conn).GetStatus(t.Context(), &adminv1.GetStatusRequest{})
		return status.Code(err), status.Code(appendTo(t, conn))
	}
	operator, anybody := ask("127.0.0.1")
	require.Equal(t, []codes.Code{codes.Unimplemented, codes.OK}, []codes.Code{operator, anybody})
	outside := outsideAddress(t)
	if outside == "" {
		t.Skip("this machine has no address but loopback")
	}
	operator, anybody = ask(outside)
	require.Equal(t, []codes.Code{codes.PermissionDenied, codes.OK}, []codes.Code{operator, anybody})
}

// outsideAddress returns an address of this machine that is not loopback. A call to this address also comes from it.
func outsideAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.IsGlobalUnicast() {
			return network.IP.String()
		}
	}
	return ""
}
