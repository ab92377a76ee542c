package e2e_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/services/gateway"
)

// A client learns the limits that its gateway has now, and is not refused for what it could know.
func TestAClientLearnsTheLimitsOfItsGateway(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		s := newStage(t, func(cfg *gateway.Config) {
			cfg.FrameRate, cfg.CommandRatePerUser, cfg.ReadRatePerUser, cfg.AddRatePerUser = 500, 0.5, 1000, 4
			cfg.MaxConnectionsPerUser, cfg.MaxConversationsPerUser, cfg.MaxFrameBytes = 7, 30, 200_000
		})
		ann := open(t, s.url(), "ann", codec, nil)
		limits := ann.Limits()
		require.Equal(t, uint32(7), limits.GetMaxConnectionsPerUser())
		require.Equal(t, uint32(30), limits.GetMaxConversationsPerUser())
		require.Equal(t, uint32(200_000), limits.GetMaxFrameBytes())
		require.Equal(t, uint32(protocol.MaxTextBytes), limits.GetMaxTextBytes())
		rates := [][2]uint32{}
		for _, r := range []*clientv1.Rate{limits.GetFrameRate(), limits.GetCommandRate(), limits.GetReadRate(), limits.GetAddRate()} {
			rates = append(rates, [2]uint32{r.GetPerMinute(), r.GetBurst()})
		}
		require.Equal(t, [][2]uint32{{30_000, 5000}, {30, 5}, {60_000, 10_000}, {240, protocol.MaxMembers}}, rates)

		_, err := ann.Send(t.Context(), s.id, strings.Repeat("x", protocol.MaxTextBytes+1))
		refused, typed := errors.AsType[*client.RefusedError](err)
		require.True(t, typed, "%v", err)
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_INVALID, refused.Code)
		require.Equal(t, "submit.body.message.text", refused.Field)
		require.Zero(t, s.counter("runnel_gateway_refusals_total", "reason=invalid"))

		var readers sync.WaitGroup
		for range 50 {
			readers.Go(func() {
				_, err := ann.ReadAfter(t.Context(), "g00000000000000000000000000", 0, 10)
				refused, _ := errors.AsType[*client.RefusedError](err)
				assert.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, refused.Code)
			})
		}
		readers.Wait()
		require.Zero(t, s.counter("runnel_gateway_limit_refusals_total", "limit=calls_per_connection"))
	}
}
