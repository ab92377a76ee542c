package e2e_test

import (
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/gateway"
)

// revoke revokes a user's tokens in the store, without a notice.
func (s *stage) revoke(user string) (before int64) {
	s.t.Helper()
	answer, err := s.history.RevokeUser(s.t.Context(), &historyv1.RevokeUserRequest{UserId: user})
	require.NoError(s.t, err)
	return answer.GetBeforeMs()
}

// tellRevoked publishes the notice that bob's tokens were revoked.
func (s *stage) tellRevoked(before int64) {
	s.t.Helper()
	data, err := (&brokerv1.Revoked{UserId: "bob", BeforeMs: before}).MarshalVT()
	require.NoError(s.t, err)
	require.NoError(s.t, s.nc.Publish(broker.RevokedSubject, data))
}

// issued makes a token of bob's with a time of issue.
func issued(t *testing.T, at time.Time) string {
	t.Helper()
	signed, err := auth.Mint([]byte(secret), "bob", 2*time.Hour, at, "", "")
	require.NoError(t, err)
	return signed
}

// undated makes a token without a time of issue.
func undated(t *testing.T, user string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret)}, nil)
	require.NoError(t, err)
	signed, err := jwt.Signed(signer).Claims(jwt.Claims{Subject: user, Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour))}).Serialize()
	require.NoError(t, err)
	return signed
}

func connectWith(token string) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: token, DeviceId: "d"}}}
}

func (s *stage) loginWith(token string) *raw {
	s.t.Helper()
	r := dialAt(s.t, s.url(), frame.JSON)
	require.NotNil(s.t, r.ask(connectWith(token)).GetConnected())
	return r
}

// withoutReading prevents the gateway from reading revocations from the store in time.
func withoutReading(cfg *gateway.Config) { cfg.RevocationInterval = time.Hour }

// later is a time of issue after everything that is revoked in a test. The verifier accepts it, because clocks differ.
func later() time.Time { return time.Now().Add(10 * time.Second) }

func TestANoticeClosesTheUsersConnections(t *testing.T) {
	s := newStage(t, withoutReading)
	old := s.loginWith(issued(t, time.Now().Add(-time.Minute)))
	unknown := s.loginWith(undated(t, "bob"))
	renewed := s.loginWith(issued(t, time.Now().Add(-time.Minute)))
	other := s.loginWith(undated(t, "cem"))
	answer := renewed.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: issued(t, later())}}})
	require.NotNil(t, answer.GetRefreshed(), "%v", answer)
	s.tellRevoked(s.revoke("bob"))
	require.Equal(t, errcode.CloseUnauthenticated, old.closed())
	require.Equal(t, errcode.CloseUnauthenticated, unknown.closed())
	for _, r := range []*raw{renewed, other} {
		require.NotNil(t, r.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListConversations{ListConversations: &clientv1.ListConversations{}}}).GetConversations())
	}
	require.Eventually(t, func() bool { return s.counter("runnel_gateway_revoked_total") == 2 }, patience, patience/3000)
}
