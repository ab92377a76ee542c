package tracing_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/client/internal/tracing"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestATraceparentIsReadAndWritten(t *testing.T) {
	at := time.Now()
	origin := tracing.OriginOf(traceparent, at)
	require.Equal(t, at, origin.At)
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", tracing.ID(origin.Parent))
	require.Equal(t, traceparent, tracing.Traceparent(trace.ContextWithRemoteSpanContext(t.Context(), origin.Parent)))
}

func TestAnythingElseIsNoTrace(t *testing.T) {
	for _, text := range []string{"", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01"} {
		require.Nil(t, tracing.OriginOf(text, time.Now()))
		require.Empty(t, tracing.ID(tracing.Parse(text)))
	}
	require.Empty(t, tracing.Traceparent(t.Context()))
}
