package client

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// outbox holds the commands whose outcome is not known yet.
//
// Commands wait in queues, one for each conversation. Only the first command of a queue is sent; the next one follows
// when its outcome is known. This keeps their order through lost connections, timeouts and temporary errors.
//
// It is not safe for concurrent use: the lock of the client guards it.
type outbox struct {
	limit    int
	requests *request.Queue
	// tracer is nil without a TracerProvider.
	tracer trace.Tracer
	// accepted is called when the broker holds a command.
	accepted func(ticket *Ticket)

	queues map[string][]*Ticket
	// count is the number of tickets in all queues.
	count int
	// refusals and committed record the commands that have left the outbox.
	refusals  refusals
	committed committedCommands
	// closed is the reason why no more commands are accepted; nil while the client runs.
	closed error
}

func newOutbox(limit int, requests *request.Queue, tracer trace.Tracer, accepted func(ticket *Ticket)) *outbox {
	return &outbox{limit: limit, requests: requests, tracer: tracer, accepted: accepted, queues: map[string][]*Ticket{}}
}

// enqueue adds a command. If the same command is already in the outbox, it returns the existing ticket. The parent of the
// command's span is the span in ctx.
func (o *outbox) enqueue(ctx context.Context, ticket *Ticket) (*Ticket, error) {
	if o.closed != nil {
		return nil, o.closed
	}
	for _, other := range o.queues[ticket.queue] {
		if other.CommandID != ticket.CommandID {
			continue
		}
		if !proto.Equal(other.body, ticket.body) {
			return nil, &RefusedError{
				Code:    conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT,
				Message: "the command id is in the outbox with another body", Field: "submit.command_id",
			}
		}
		other.shared = true
		return other, nil
	}
	if o.count >= o.limit {
		return nil, ErrOutboxFull
	}
	known := o.refusals.find(ticket.key(), time.Now())
	ticket.attempt.number, ticket.attempt.unconfirmed = known.attempt, known.unconfirmed
	ticket.span = beginSend(ctx, o.tracer, ticket.ConversationID, ticket.CommandID)
	o.insert(len(o.queues[ticket.queue]), ticket)
	return ticket, nil
}

// insert inserts commands into their queue at an index, and sends the first command of the queue if it was not sent yet.
func (o *outbox) insert(index int, tickets ...*Ticket) {
	queue := tickets[0].queue
	o.count += len(tickets)
	o.queues[queue] = slices.Insert(o.queues[queue], index, tickets...)
	o.sendFirst(queue)
}

// sendFirst sends the first command of a queue, if the queue has one and it was not sent yet.
func (o *outbox) sendFirst(queue string) {
	tickets := o.queues[queue]
	if len(tickets) == 0 || tickets[0].request != nil || o.closed != nil {
		return
	}
	ticket := tickets[0]
	submit := &clientv1.Submit{
		ConversationId: ticket.ConversationID, CommandId: ticket.CommandID, Body: ticket.body, Traceparent: ticket.span.parent,
	}
	ticket.attempt.note = ticket.span.note
	ticket.attempt.accepted = func() { o.accepted(ticket) }
	ticket.request = &request.Request{
		Policy:  &ticket.attempt,
		Frame:   &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Submit{Submit: submit}},
		Prepare: func() { submit.Attempt = ticket.attempt.number },
		Done: func(answer *clientv1.ServerFrame, err error) {
			if err == nil && answer.GetOutcome() == nil {
				err = errAnswer
			}
			o.remember(ticket, answer.GetOutcome(), err)
			o.end(ticket, answer, err)
		},
	}
	o.requests.Ask(ticket.request)
}

// remember records a command that leaves the outbox, in case the command is submitted again or undone.
func (o *outbox) remember(ticket *Ticket, outcome *conversationv1.Outcome, err error) {
	switch {
	case err == nil:
		o.refusals.forget(ticket.key())
		o.committed.add(committedCommand{
			conversationID: outcome.GetConversationId(), commandID: ticket.CommandID, seq: outcome.GetSeq(), body: ticket.body,
		})
	case ticket.attempt.number > 0 || ticket.attempt.unconfirmed:
		o.refusals.keep(ticket.key(), attemptRecord{attempt: ticket.attempt.number, unconfirmed: ticket.attempt.unconfirmed, at: time.Now()})
	}
}

// end removes a command from the outbox with its outcome, and sends the next command of its queue.
func (o *outbox) end(ticket *Ticket, answer *clientv1.ServerFrame, err error) {
	ticket.resolve(answer, err)
	o.count--
	rest := slices.DeleteFunc(o.queues[ticket.queue], func(other *Ticket) bool { return other == ticket })
	if len(rest) == 0 {
		delete(o.queues, ticket.queue)
		return
	}
	o.queues[ticket.queue] = rest
	o.sendFirst(ticket.queue)
}

// tickets returns all commands, in order within each queue.
func (o *outbox) tickets() []*Ticket {
	all := make([]*Ticket, 0, o.count)
	for _, queue := range slices.Sorted(maps.Keys(o.queues)) {
		all = append(all, o.queues[queue]...)
	}
	return all
}

// hasOutcome reports whether a command ended for another reason than the end of the client.
func (o *outbox) hasOutcome(ticket *Ticket) bool {
	select {
	case <-ticket.done:
		return ticket.err == nil || ticket.err != o.closed //nolint:errorlint // compares identity: only the error that closed the outbox
	default:
		return false
	}
}

// withdraw removes a command from the outbox, unless its outcome is known, a copy of it was sent, or another caller waits
// for it.
func (o *outbox) withdraw(ticket *Ticket) bool {
	select {
	case <-ticket.done:
		return false
	default:
	}
	switch {
	case ticket.shared || !ticket.unsent():
		return false
	case ticket.request == nil:
		o.end(ticket, nil, context.Canceled)
	default:
		o.requests.Finish(ticket.request, nil, context.Canceled)
	}
	return true
}

// close ends all commands, and returns their number.
func (o *outbox) close(reason error) (dropped int) {
	dropped, o.closed = o.count, reason
	for _, tickets := range o.queues {
		for _, ticket := range slices.Clone(tickets) {
			if ticket.request != nil {
				o.requests.Finish(ticket.request, nil, reason)
			} else {
				o.end(ticket, nil, reason)
			}
		}
	}
	return dropped
}

// resubmit sends undone commands of a conversation again, after its log went back to the event to. It puts them after the
// command that is in flight, and before the waiting commands. It returns their tickets and the newest undone seq, 0 if no
// command was undone. sender is the user.
func (o *outbox) resubmit(conversationID string, to uint64, sender string) (newest uint64, tickets []*Ticket) {
	var again []*Ticket
	for _, command := range o.committed.removeAbove(conversationID, to) {
		newest = command.seq
		ticket := newTicket(conversationID, command.commandID, retarget(sender, command.body, to))
		ticket.shared = true
		if command.body.GetCreate() != nil {
			ticket.ConversationID = ""
		}
		tickets = append(tickets, ticket)
		if ticket.body == nil {
			ticket.resolve(nil, ErrUndone)
			continue
		}
		ticket.span = beginSend(context.Background(), o.tracer, ticket.ConversationID, ticket.CommandID)
		again = append(again, ticket)
	}
	if len(again) > 0 {
		o.insert(min(len(o.queues[conversationID]), 1), again...)
	}
	return newest, tickets
}

// retarget returns the body of a command that is sent again after every event above to was undone; nil if the command
// refers to an undone event.
func retarget(sender string, body *conversationv1.Body, to uint64) *conversationv1.Body {
	for _, need := range conversation.Needs(ids.User(sender), body) {
		if need.Seq <= ids.Seq(to) {
			continue
		}
		if body.GetMessage() == nil {
			return nil
		}
		body = proto.CloneOf(body)
		body.GetMessage().ReplyTo = 0
	}
	return body
}
