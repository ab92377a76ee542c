package otlptest_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/e2e/otlptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSpansComeOverTheWireAndMakeATree(t *testing.T) {
	spans := otlptest.Start(t)
	tel, err := telemetry.Start(t.Context(), "my-service", telemetry.Config{OTLPEndpoint: spans.Endpoint(), SampleRatio: 1}, io.Discard)
	require.NoError(t, err)
	tracer := tel.Tracer("test")
	_, other := tracer.Start(t.Context(), "other")
	ctx, root := tracer.Start(t.Context(), "root", trace.WithAttributes(attribute.Int("n", 7), attribute.String("s", "x")))
	_, child := tracer.Start(ctx, "child", trace.WithLinks(trace.Link{SpanContext: other.SpanContext()}))
	child.AddEvent("noted")
	child.SetStatus(codes.Error, "no luck")
	_, torn := tracer.Start(telemetry.WithTraceparent(t.Context(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "torn")
	for _, span := range []trace.Span{other, child, root, torn} {
		span.End()
	}
	require.NoError(t, tel.Shutdown(context.WithoutCancel(t.Context())))

	all := spans.Await(t, "all four", func(all otlptest.Spans) bool { return len(all) == 4 })
	one := all.Trace(root.SpanContext().TraceID().String())
	require.Len(t, one, 2)
	require.Equal(t, "root", one.Roots()[0].Name)
	require.Empty(t, one.Orphans())
	got := one.Named("child")[0]
	require.Equal(t, "root", one.ParentOf(got).Name)
	require.Equal(t, []string{"noted"}, got.Events)
	require.Equal(t, "no luck", got.Failure)
	require.Equal(t, "my-service", got.Service)
	require.Equal(t, map[string]any{"n": int64(7), "s": "x"}, one.Named("root")[0].Attributes)
	require.True(t, one.Linked(all.Named("other")[0]))
	require.False(t, one.Linked(all.Named("torn")[0]))
	require.Equal(t, "torn", all.Orphans()[0].Name)
	require.Len(t, all.Of("my-service"), 4)
	require.Empty(t, all.Of("another"))

	require.Regexp(t, `trace [0-9a-f]{32}
  other .*
trace [0-9a-f]{32}
  root .*my-service
    child .*my-service  failed: no luck
trace 0af7651916cd43dd8448eb211c80319c
\? torn .*
`, all.Tree())
	require.Equal(t, "no spans", otlptest.Spans{}.Tree())
}
