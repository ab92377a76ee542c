package fleet

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// take answers one query on a separate goroutine, or refuses it if too many queries are being answered.
func (f *Fleet) take(ctx context.Context, msg *nats.Msg) {
	select {
	case f.turns <- struct{}{}:
	default:
		f.reply(msg, nil, status.Error(codes.ResourceExhausted, "too many queries at once; try again"))
		return
	}
	f.answering.Go(func() {
		defer func() { <-f.turns }()
		response, err := f.answer(ctx, msg)
		f.reply(msg, response, err)
	})
}

func (f *Fleet) answer(ctx context.Context, msg *nats.Msg) (response proto.Message, err error) {
	name := msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:]
	m, known := f.methods[name]
	if !known {
		return nil, status.Errorf(codes.Unimplemented, "a %s of this version does not support %s", f.cfg.Service, name)
	}
	timeout := defaultTimeout
	if ms, err := strconv.ParseInt(msg.Header.Get(timeoutHeader), 10, 32); err == nil && ms > 0 {
		timeout = min(time.Duration(ms)*time.Millisecond, maxTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if value := recover(); value != nil {
			f.cfg.Log.ErrorContext(ctx, "a query panicked", "method", name, "panic", fmt.Sprint(value), "stack", string(debug.Stack()))
			response, err = nil, status.Error(codes.Internal, "internal error")
		}
	}()
	answer, err := m.handle(m.impl, ctx, func(in any) error {
		request, ok := in.(proto.Message)
		if !ok {
			return status.Errorf(codes.Internal, "%T is no protobuf message", in)
		}
		if err := proto.Unmarshal(msg.Data, request); err != nil {
			return status.Errorf(codes.InvalidArgument, "decode the query: %v", err)
		}
		return nil
	}, nil)
	if err != nil {
		return nil, f.refine(ctx, name, err)
	}
	response, ok := answer.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "%T is no protobuf message", answer)
	}
	return response, nil
}

// refine keeps errors with a gRPC code, translates the end of a context, and hides all others, as package rpc does.
func (f *Fleet) refine(ctx context.Context, method string, err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	f.cfg.Log.ErrorContext(ctx, "a query failed with an error that has no gRPC code", "method", method, "error", err)
	return status.Error(codes.Internal, "internal error")
}

// reply sends an answer. If the answer is lost, the caller treats this instance as missing.
func (f *Fleet) reply(msg *nats.Msg, response proto.Message, err error) {
	var data []byte
	if err == nil {
		data, err = proto.Marshal(response)
	}
	// headroom is the space for headers and subject.
	const headroom = 1024
	if limit := int(f.cfg.NATS.MaxPayload()); err == nil && len(data)+headroom > limit {
		data, err = nil, status.Errorf(codes.ResourceExhausted, "the answer of %d bytes is too large for NATS; request less", len(data))
	}
	answer := &nats.Msg{Subject: msg.Reply, Data: data, Header: nats.Header{
		instanceHeader: {f.cfg.Instance},
		codeHeader:     {strconv.FormatUint(uint64(status.Code(err)), 10)},
	}}
	if err != nil {
		answer.Header.Set(messageHeader, oneLine(status.Convert(err).Message()))
	}
	if err := f.cfg.NATS.PublishMsg(answer); err != nil {
		f.cfg.Log.Debug("could not answer a query", "subject", msg.Subject, "error", err)
	}
}

// oneLine makes a message fit into one header line.
func oneLine(message string) string {
	const most = 500
	message = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, message)
	return message[:min(len(message), most)]
}
