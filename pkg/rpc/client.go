package rpc

import (
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// roundRobin spreads calls over every address the target has; by itself gRPC stays with the first.
const roundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`

// reconnect is quick because the other side is usually being replaced, and few clients stand in line: the services
// themselves.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// Dial makes a connection to a service; target is host:port, or any form gRPC knows, such as dns:///history:9000 for every
// address behind a name. It connects in the background, so the service need not be there yet; until it is, calls fail with
// UNAVAILABLE at once. The caller closes the connection.
func Dial(target string, tel *telemetry.Telemetry, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(roundRobin),
		grpc.WithDisableServiceConfig(), // a TXT record must not change how the services talk
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}),
			grpc.MaxCallRecvMsgSize(MaxMessageBytes),
			grpc.MaxCallSendMsgSize(MaxMessageBytes),
		),
	}
	if tel.Tracing() {
		options = append(options, grpc.WithStatsHandler(otelgrpc.NewClientHandler(traced(tel)...)))
	}
	conn, err := grpc.NewClient(target, append(options, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("connecting to %q: %w", target, err)
	}
	return conn, nil
}

// traced sets up OpenTelemetry's handlers without its globals. Metrics are ours, see observer; gRPC's own services, which
// probes call all day, make no traces.
func traced(tel *telemetry.Telemetry) []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(tel.TracerProvider),
		otelgrpc.WithPropagators(tel.Propagator),
		otelgrpc.WithMeterProvider(metricnoop.NewMeterProvider()),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return !strings.HasPrefix(info.FullMethodName, "/grpc.") }),
	}
}
