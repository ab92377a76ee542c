package attack_test

import (
	"crypto/tls"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/e2e/devkeys"
)

var roles = []attack{
	{
		name: "gRPC without a certificate", tries: "calls without TLS, without a certificate, and with one of another authority", seen: "UNAVAILABLE: the handshake fails",
		settings: secured, bound: bound{sockets: 3, megabytes: 64, lines: 3}, run: func(s *target) {
			foreign := s.ring.Files(devkeys.Clients)
			foreign.CAFile = s.ring.Files("gateway").CAFile
			nameless := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
			conn, err := grpc.NewClient(s.address("rpc"), grpc.WithTransportCredentials(nameless))
			require.NoError(s, err)
			defer func() { _ = conn.Close() }()
			for _, caller := range []grpc.ClientConnInterface{s.caller(certs.Config{}), s.caller(foreign), conn} {
				require.Equal(s, codes.Unavailable, s.appends(caller))
				require.Equal(s, codes.Unavailable, s.operates(caller))
			}
			s.during()
		},
	},
	{
		name: "a stolen certificate of a service", tries: "writing the log as gateway, history, admin or service; operating as gateway, delivery, history or service; reading as gateway without the name of a member", seen: "PERMISSION_DENIED",
		settings: secured, bound: bound{sockets: 9, megabytes: 64, lines: 10}, run: func(s *target) {
			for _, role := range []string{"gateway", "history", "admin", "service"} {
				require.Equal(s, codes.PermissionDenied, s.appends(s.caller(s.ring.Files(role))), role)
			}
			for _, role := range []string{"gateway", "delivery", "history", "service"} {
				require.Equal(s, codes.PermissionDenied, s.operates(s.caller(s.ring.Files(role))), role)
			}
			gateway := historyv1.NewHistoryServiceClient(s.caller(s.ring.Files("gateway")))
			_, err := gateway.Read(s.Context(), &historyv1.ReadRequest{ConversationId: "g00000000000000000000000000"})
			require.Equal(s, codes.PermissionDenied, status.Code(err))
			_, err = gateway.ListMembers(s.Context(), &historyv1.ListMembersRequest{ConversationId: "g00000000000000000000000000"})
			require.Equal(s, codes.PermissionDenied, status.Code(err))
			s.during()
		},
	},
}

// caller connects to gRPC with a certificate. The attack closes the connection.
func (s *target) caller(files certs.Config) grpc.ClientConnInterface {
	s.Helper()
	conn, err := rpc.Dial(s.address("rpc"), rpc.ClientConfig{Service: rpc.RoleService, TLS: files}, telemetry.Discard())
	require.NoError(s, err)
	s.callers = append(s.callers, conn)
	return conn
}

func (s *target) appends(caller grpc.ClientConnInterface) codes.Code {
	_, err := historyv1.NewHistoryServiceClient(caller).Append(s.Context(), &historyv1.AppendRequest{})
	return status.Code(err)
}

func (s *target) operates(caller grpc.ClientConnInterface) codes.Code {
	_, err := adminv1.NewAdminServiceClient(caller).GetStatus(s.Context(), &adminv1.GetStatusRequest{})
	return status.Code(err)
}
