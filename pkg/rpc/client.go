package rpc

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// roundRobin distributes calls over all addresses of the target; by default gRPC uses only the first address.
const roundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`

// reconnect uses short delays. Usually the other side is just being replaced, and only the few services reconnect at
// once.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// ClientConfig configures calls to one service.
type ClientConfig struct {
	// Service is the role of the called service. Its certificate must prove this role. Metrics and logs use the role as a
	// name. Required.
	Service Role
	// TLS is the certificate to present and the authorities to trust. Defaults to none: the connection is not encrypted.
	TLS certs.Config
	// Timeout is the time limit of calls whose context has no deadline. Defaults to 10 s.
	Timeout time.Duration
	// MaxInFlight limits the calls in flight of each method. Further calls wait for a short time. If too many calls wait,
	// they are refused with UNAVAILABLE. Defaults to 512.
	MaxInFlight int
}

func (c ClientConfig) withDefaults() ClientConfig {
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = 512
	}
	return c
}

// Dial creates a connection to a service. target is host:port, or any form that gRPC supports, such as
// dns:///history:9000 for all addresses behind a name. Dial connects in the background, so the service may start later;
// until then calls fail at once with UNAVAILABLE. If too many calls of a method have failed, its calls also fail with
// UNAVAILABLE for a moment: see breaker. The caller closes the connection.
func Dial(target string, cfg ClientConfig, tel *telemetry.Telemetry, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	cfg = cfg.withDefaults()
	transport, err := clientTransport(cfg, tel)
	if err != nil {
		return nil, fmt.Errorf("connecting to %q: %w", target, err)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(roundRobin),
		grpc.WithDisableServiceConfig(), // a DNS TXT record must not change the configuration of the services
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}),
			grpc.MaxCallRecvMsgSize(MaxMessageBytes),
			grpc.MaxCallSendMsgSize(MaxMessageBytes),
		),
		grpc.WithChainUnaryInterceptor(newBreaker(string(cfg.Service), cfg, tel).unary),
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

func clientTransport(cfg ClientConfig, tel *telemetry.Telemetry) (credentials.TransportCredentials, error) {
	bundle, err := loadMutual(cfg.TLS, tel)
	switch {
	case err != nil:
		return nil, err
	case bundle == nil:
		return insecure.NewCredentials(), nil
	case cfg.Service == "":
		return nil, errors.New("with TLS the role of the service must be set")
	}
	return mutual{bundle: bundle, service: cfg.Service}, nil
}

// traced configures OpenTelemetry's handlers without global variables. Metrics come from observer instead. gRPC's own
// services, which probes call constantly, create no traces.
func traced(tel *telemetry.Telemetry) []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(tel.TracerProvider),
		otelgrpc.WithPropagators(tel.Propagator),
		otelgrpc.WithMeterProvider(metricnoop.NewMeterProvider()),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return !strings.HasPrefix(info.FullMethodName, "/grpc.") }),
	}
}
