package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Headers of queries and answers.
const (
	timeoutHeader  = "Runnel-Timeout-Ms"
	instanceHeader = "Runnel-Instance"
	codeHeader     = "Runnel-Code"
	messageHeader  = "Runnel-Message"
)

// errSilent is the error for an instance that is known to be live but did not answer in time.
var errSilent = status.Error(codes.DeadlineExceeded, "did not answer in time")

// maxAnswers limits the number of answers that are kept for one query.
const maxAnswers = maxMembers

// Answer is the answer of one instance: either Response, or Err with a gRPC code.
type Answer[T any] struct {
	Instance string
	Response *T
	Err      error
}

// message is the interface of a generated protobuf message.
type message[T any] interface {
	*T
	proto.Message
}

// AskAll queries every instance of a service, and returns the answers by instance name. ctx must have a deadline. AskAll
// returns when all instances that are known to be live have answered, or when ctx ends; a missing instance then has an
// error in the answers.
func AskAll[T any, M message[T]](ctx context.Context, f *Fleet, service, method string, request proto.Message) ([]Answer[T], error) {
	waiting := map[string]struct{}{}
	for _, m := range f.expected(ctx, service) {
		waiting[m.Instance] = struct{}{}
	}
	var answers []Answer[T]
	err := f.ask(ctx, allPrefix+service+"."+method, request, func(msg *nats.Msg) bool {
		instance := msg.Header.Get(instanceHeader)
		if instance == "" {
			return len(waiting) == 0 // the NATS server reports that there are no subscribers
		}
		delete(waiting, instance)
		answers = append(answers, decode[T, M](instance, msg))
		return len(waiting) == 0 || len(answers) >= maxAnswers
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	for instance := range waiting {
		answers = append(answers, Answer[T]{Instance: instance, Err: errSilent})
	}
	slices.SortFunc(answers, func(a, b Answer[T]) int { return strings.Compare(a.Instance, b.Instance) })
	return answers, nil
}

// AskOne queries one instance. It returns the instance's error, or UNAVAILABLE if there is no such instance.
func AskOne[T any, M message[T]](ctx context.Context, f *Fleet, instance, service, method string, request proto.Message) (*T, error) {
	var answer Answer[T]
	err := f.ask(ctx, onePrefix+instance+"."+service+"."+method, request, func(msg *nats.Msg) bool {
		answer = Answer[T]{Err: status.Errorf(codes.Unavailable, "there is no %s %s", service, instance)}
		if from := msg.Header.Get(instanceHeader); from != "" {
			answer = decode[T, M](from, msg)
		}
		return true
	})
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return nil, status.FromContextError(err).Err()
		}
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return answer.Response, answer.Err
}

// ask publishes a query and passes every answer to take, until take returns true or ctx ends.
func (f *Fleet) ask(ctx context.Context, subject string, request proto.Message, take func(*nats.Msg) (done bool)) error {
	timeout := defaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), 0)
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	data, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the query: %w", err)
	}
	inbox := answerPrefix + rand.Text() // the subject is random, so that it receives no answers to other queries
	answers, err := f.cfg.NATS.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("subscribe to answers: %w", err)
	}
	defer func() { _ = answers.Unsubscribe() }() // fails only if the connection is closed
	err = f.cfg.NATS.PublishMsg(&nats.Msg{
		Subject: subject, Reply: inbox, Data: data,
		Header: nats.Header{timeoutHeader: {strconv.FormatInt(timeout.Milliseconds(), 10)}},
	})
	if err != nil {
		return fmt.Errorf("publish the query: %w", err)
	}
	for {
		msg, err := answers.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			msg = &nats.Msg{} // no subscriber; an answer without an instance reports this
		case err != nil:
			return err
		}
		if take(msg) {
			return nil
		}
	}
}

func decode[T any, M message[T]](instance string, msg *nats.Msg) Answer[T] {
	answer := Answer[T]{Instance: instance}
	code, err := strconv.ParseUint(msg.Header.Get(codeHeader), 10, 32)
	if err != nil {
		answer.Err = status.Error(codes.Internal, "the answer has no code")
		return answer
	}
	if codes.Code(code) != codes.OK {
		answer.Err = status.Error(codes.Code(code), msg.Header.Get(messageHeader))
		return answer
	}
	response := M(new(T))
	if err := proto.Unmarshal(msg.Data, response); err != nil {
		answer.Err = status.Errorf(codes.Internal, "decode the answer: %v", err)
		return answer
	}
	answer.Response = (*T)(response)
	return answer
}
