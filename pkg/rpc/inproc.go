package rpc

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Inproc calls services of the same process through their generated clients: no socket, no encoding, and the handler runs
// on the caller's goroutine. It is a grpc.ServiceRegistrar and a grpc.ClientConnInterface at once:
//
//	inproc := rpc.NewInproc(tel)
//	historyv1.RegisterHistoryServiceServer(inproc, server)
//	client := historyv1.NewHistoryServiceClient(inproc)
//
// Errors, metadata, metrics and traces are the same as in a call over the network. Three things differ. A message is passed as a
// shallow copy: each side has its own struct, but both share the lists, bytes and messages in it, so neither side may change
// those afterwards, and a client may not reuse them. A call returns when its handler returns, so the handler must observe the
// context; the context's values are the caller's. And there are no streams, no headers or trailers in answers and no call
// options.
type Inproc struct {
	observer *observer
	tracer   trace.Tracer // nil if there are no traces
	methods  map[string]inprocMethod
	// contents caches the results of contentOf by type. There are few types, and none is ever removed.
	contents sync.Map
}

type inprocMethod struct {
	handle grpc.MethodHandler
	impl   any
}

var (
	_ grpc.ClientConnInterface = (*Inproc)(nil)
	_ grpc.ServiceRegistrar    = (*Inproc)(nil)
)

// NewInproc creates an Inproc without services.
func NewInproc(tel *telemetry.Telemetry) *Inproc {
	i := &Inproc{observer: newObserver(tel), methods: map[string]inprocMethod{}}
	if tel.Tracing() {
		i.tracer = tel.Tracer("github.com/runnelhq/runnel/pkg/rpc")
	}
	return i
}

// Allow does nothing, because a process may call its own services without restriction.
func (i *Inproc) Allow(Policy) {}

// RegisterService adds a service. All services must be added before the first call. Like gRPC's RegisterService, it
// panics on a programming error: a service that is already registered, or an implementation that lacks a method.
func (i *Inproc) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if want := reflect.TypeOf(desc.HandlerType).Elem(); !reflect.TypeOf(impl).Implements(want) {
		panic(fmt.Sprintf("rpc: %T does not implement %v", impl, want)) //nolint:forbidigo // like gRPC: the interface returns no error
	}
	for _, m := range desc.Methods {
		name := fullMethod(desc, m.MethodName)
		if _, twice := i.methods[name]; twice {
			panic("rpc: " + name + " is registered twice") //nolint:forbidigo // like gRPC: the interface returns no error
		}
		i.methods[name] = inprocMethod{m.Handler, impl}
	}
	i.observer.add(desc)
}

// Invoke calls a method and puts its answer into reply.
func (i *Inproc) Invoke(ctx context.Context, method string, request, reply any, _ ...grpc.CallOption) error {
	m, ok := i.methods[method]
	if !ok {
		return status.Errorf(codes.Unimplemented, "no service of this process has the method %s", method)
	}
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	ctx = crossOver(ctx)
	if i.tracer == nil {
		return i.call(ctx, m, request, reply)
	}
	ctx, span := i.tracer.Start(ctx, method[1:], trace.WithSpanKind(trace.SpanKindInternal),
		trace.WithAttributes(attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", method[1:])))
	defer span.End()
	err := i.call(ctx, m, request, reply)
	if err != nil {
		span.SetStatus(otelcodes.Error, status.Code(err).String())
	}
	return err
}

func (i *Inproc) call(ctx context.Context, m inprocMethod, request, reply any) error {
	answer, err := m.handle(m.impl, ctx, func(in any) error { return i.handOver(in, request) }, i.observer.unary)
	if err != nil {
		return err
	}
	return i.handOver(reply, answer)
}

// NewStream returns an error: no service in the process needs streams yet.
func (i *Inproc) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "streams are not supported within a process")
}

// crossOver derives the handler's context from the caller's. The caller's outgoing metadata becomes the handler's
// incoming metadata. Metadata that the caller itself received is not passed on. The handler's own calls do not inherit
// the caller's outgoing metadata.
func crossOver(ctx context.Context) context.Context {
	sent, sends := metadata.FromOutgoingContext(ctx)
	_, received := metadata.FromIncomingContext(ctx)
	if !sends && !received {
		return ctx
	}
	ctx = metadata.NewIncomingContext(ctx, sent)
	if sends {
		ctx = metadata.NewOutgoingContext(ctx, nil)
	}
	return ctx
}

// handOver copies the message from into the message to.
func (i *Inproc) handOver(to, from any) error {
	target, ok := to.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%T is no protobuf message", to)
	}
	source, ok := from.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%T is no protobuf message", from)
	}
	dst, src := reflect.ValueOf(to), reflect.ValueOf(from)
	if dst.Type() != src.Type() || dst.IsNil() {
		return status.Errorf(codes.Internal, "%T cannot be handed over as %T", from, to)
	}
	if src.IsNil() { // the message is empty
		proto.Reset(target)
		return nil
	}
	// The exported fields of a generated message are its content. Copying them with protoreflect would take ten times as
	// long.
	dst, src = dst.Elem(), src.Elem()
	for _, field := range i.contentOf(src.Type()) {
		dst.Field(field).Set(src.Field(field))
	}
	if unknown, stale := source.ProtoReflect().GetUnknown(), target.ProtoReflect().GetUnknown(); len(unknown)+len(stale) > 0 {
		target.ProtoReflect().SetUnknown(unknown)
	}
	return nil
}

// contentOf returns the indexes of a message's exported fields.
func (i *Inproc) contentOf(message reflect.Type) []int {
	if known, ok := i.contents.Load(message); ok {
		fields, _ := known.([]int) // always this type
		return fields
	}
	var fields []int
	for field := range message.NumField() {
		if message.Field(field).IsExported() {
			fields = append(fields, field)
		}
	}
	i.contents.Store(message, fields)
	return fields
}
