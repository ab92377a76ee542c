package session

import (
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Connections with bad tokens cost a few lines, which say how many there were.
func TestBadTokensDoNotFillTheLog(t *testing.T) {
	const attempts = 5000
	s := newStage(t)
	limiter := telemetry.NewLimiter(slog.NewTextHandler(s.logs, nil))
	s.deps.Log = slog.New(limiter)
	for range attempts {
		c := s.open(frame.Proto)
		c.say(connectFrame(&clientv1.Connect{Token: "none", DeviceId: "d"}))
		require.Equal(t, errcode.CloseUnauthenticated, <-c.closes)
	}
	limiter.Close()
	lines := strings.Count(s.logs.String(), "a token was refused")
	require.Less(t, lines, 20)
	total := lines
	for _, match := range regexp.MustCompile(`not_logged=(\d+)`).FindAllStringSubmatch(s.logs.String(), -1) {
		omitted, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		total += omitted
	}
	require.Equal(t, attempts, total)
}
