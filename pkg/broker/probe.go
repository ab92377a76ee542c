package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

const (
	// ProbeStream keeps the last probe, on disk like commands. The permissions for commands include its name and subject.
	ProbeStream  = "IN_PROBE"
	probeSubject = "in.probe"

	// probeTimeout is shorter than the time that a readiness check may take.
	probeTimeout = 2 * time.Second
	// probeGrace is how long probes may fail before the check fails: electing a leader takes seconds, and affects all
	// services at once.
	probeGrace = 10 * time.Second

	maxProbeBytes     = 1 << 10
	probeStreamBytes  = 64 << 10
	wrongStreamErrID  = 10060 // JetStream's error code for a stream other than the expected one
	anyOtherStream    = "none"
	expectStreamEntry = "Nats-Expected-Stream"
)

// Probe checks whether JetStream stores messages. A connection alone does not prove this: a server whose disk is full, or
// that has lost the majority of its cluster, keeps its connections.
type Probe struct {
	nc     *nats.Conn
	create func(ctx context.Context) error

	mu     sync.Mutex
	stored time.Time // when a probe was last stored; zero if none was
}

// NewProbe makes a probe. create creates the stream for probes; it is nil for services that may not create streams.
func NewProbe(nc *nats.Conn, create func(ctx context.Context) error) *Probe {
	return &Probe{nc: nc, create: create}
}

// Check stores a probe. If the publish is acknowledged, commands can be accepted too. A failure within 10 s after a
// success is reported as degraded. If no delivery worker has created the stream for probes yet, but the streams of
// commands answer, that is also reported as degraded.
func (p *Probe) Check(ctx context.Context) error {
	if !p.nc.IsConnected() {
		return errors.New("not connected")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := p.publish(ctx)
	if errors.Is(err, nats.ErrNoResponders) && p.create != nil {
		if err = p.create(ctx); err == nil {
			err = p.publish(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.stored = time.Now()
		return nil
	case !p.stored.IsZero() && time.Since(p.stored) < probeGrace:
		return telemetry.Degraded(err)
	case errors.Is(err, nats.ErrNoResponders) && p.commandsAnswer(ctx):
		return telemetry.Degraded(fmt.Errorf("the stream %s does not exist; a delivery worker of this version creates it", ProbeStream))
	case errors.Is(err, nats.ErrNoResponders):
		return errors.New("connected, but JetStream is disabled or has no streams: is the disk of NATS full, or has no delivery worker started yet?")
	}
	return err
}

// publish stores one probe.
func (p *Probe) publish(ctx context.Context) error {
	ack, err := p.request(ctx, &nats.Msg{Subject: probeSubject, Data: []byte(time.Now().UTC().Format(time.RFC3339Nano))})
	switch {
	case err != nil:
		return fmt.Errorf("connected, but JetStream did not acknowledge a message: %w", err)
	case ack.Error != nil:
		return fmt.Errorf("connected, but JetStream did not store a message: %s", ack.Error.Description)
	}
	return nil
}

// commandsAnswer reports whether the stream of a partition exists. It publishes a message that the stream refuses.
func (p *Probe) commandsAnswer(ctx context.Context) bool {
	ack, err := p.request(ctx, &nats.Msg{Subject: CommandSubject(0), Header: nats.Header{expectStreamEntry: {anyOtherStream}}})
	return err == nil && ack.Error != nil && ack.Error.ErrorCode == wrongStreamErrID
}

// answer is JetStream's answer to a publish.
type answer struct {
	Error *jetstream.APIError `json:"error"`
}

func (p *Probe) request(ctx context.Context, message *nats.Msg) (answer, error) {
	reply, err := p.nc.RequestMsgWithContext(ctx, message)
	if err != nil {
		return answer{}, err
	}
	var ack answer
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return answer{}, fmt.Errorf("its answer cannot be read: %w", err)
	}
	return ack, nil
}

// EnsureProbeStream creates the stream for probes, or applies its settings to an existing stream.
func EnsureProbeStream(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        ProbeStream,
		Description: "Runnel: the last probe of whether messages are stored",
		Subjects:    []string{probeSubject},
		Storage:     jetstream.FileStorage,
		Replicas:    cfg.Replicas,
		MaxMsgs:     1,
		MaxBytes:    probeStreamBytes,
		MaxMsgSize:  maxProbeBytes,
		Discard:     jetstream.DiscardOld,
	})
	if err != nil {
		return fmt.Errorf("create stream %s: %w", ProbeStream, err)
	}
	return nil
}
