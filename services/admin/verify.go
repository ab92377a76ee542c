package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
)

// maxStretch is the maximum number of events that one call checks. maxFaults is the maximum number of faults that it
// returns.
const maxStretch, maxFaults = 10_000, 100

// VerifyConversation checks a stretch of the log, up to the head at the start of the call: the stretch must be contiguous
// and every hash must be right. It reports each fault, and continues after it.
func (s *Server) VerifyConversation(ctx context.Context, request *adminv1.VerifyConversationRequest) (*adminv1.VerifyConversationResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if len(request.GetAfterHash()) != 0 && len(request.GetAfterHash()) != chain.Size {
		return nil, invalid("after_hash: must be empty or 32 bytes")
	}
	head, err := s.head(ctx, ids.Conversation(request.GetConversationId()))
	if err != nil {
		return nil, err
	}
	if request.GetAfter() > head.GetHead() {
		return nil, invalid("after: is beyond the newest seq")
	}
	c := &check{conversation: ids.Conversation(request.GetConversationId()), head: head, response: &adminv1.VerifyConversationResponse{
		Head: head.GetHead(), Checked: request.GetAfter(), CheckedHash: request.GetAfterHash(),
	}}
	if err := s.begin(ctx, c); err != nil {
		return nil, err
	}
	until := ids.Seq(min(head.GetHead(), request.GetAfter()+maxStretch))
	for ids.Seq(c.response.GetChecked()) < until {
		page, err := s.History.Read(ctx, &historyv1.ReadRequest{
			ConversationId: string(c.conversation), After: c.response.GetChecked(), Limit: uint32(min(rpc.MaxItems, until-ids.Seq(c.response.GetChecked()))),
		})
		if last, gap := gapOf(err); gap {
			c.behind(last, until)
			continue
		}
		if err != nil {
			return nil, err
		}
		if events := page.GetEvents(); len(events) == 0 || ids.Seq(events[0].GetSeq()) > until {
			c.missing(until)
		}
		for _, event := range page.GetEvents() {
			if ids.Seq(event.GetSeq()) <= until {
				c.event(event)
			}
		}
	}
	return c.response, nil
}

// check is the running verification of one stretch.
type check struct {
	conversation ids.Conversation
	head         *historyv1.Head
	response     *adminv1.VerifyConversationResponse
	notChecked   uint64
}

// begin finds the previous hash that the first event of the stretch must contain.
func (s *Server) begin(ctx context.Context, c *check) error {
	switch after := c.response.GetChecked(); {
	case after == 0:
		c.response.CheckedHash = chain.Zero
	case len(c.response.GetCheckedHash()) == 0:
		page, err := s.History.Read(ctx, &historyv1.ReadRequest{ConversationId: string(c.conversation), After: after - 1, Limit: 1})
		if _, gap := gapOf(err); err != nil && !gap {
			return err
		}
		if events := page.GetEvents(); len(events) > 0 && events[0].GetSeq() == after {
			c.response.CheckedHash = events[0].GetHash()
		}
	}
	return nil
}

// event checks the next existing event.
func (c *check) event(event *conversationv1.Event) {
	if missed := event.GetSeq() - c.response.GetChecked() - 1; missed > 0 {
		c.gap(ids.Seq(event.GetSeq() - 1))
	}
	var v chain.Verifier
	if before := c.response.GetCheckedHash(); before != nil {
		v = *chain.From(ids.Seq(c.response.GetChecked()), before)
	}
	var broken *chain.Broken
	switch content, err := v.Next(event); {
	case errors.As(err, &broken):
		c.fault(ids.Seq(event.GetSeq()), broken.Reason)
	case content == chain.Erased:
		c.response.Erased++
	case content == chain.NotChecked:
		c.unchecked(event)
	}
	if event.GetSeq() == c.head.GetHead() && !bytes.Equal(event.GetHash(), c.head.GetHeadHash()) {
		c.fault(ids.Seq(event.GetSeq()), "its hash is not the one that the conversation's head has")
	}
	// After a fault the stored hash is trusted; otherwise one fault would make every later event fail.
	c.response.Checked, c.response.CheckedHash = event.GetSeq(), event.GetHash()
}

// unchecked records an event that this build cannot check. The event is not proved to be tampered with, but the log is
// not proved to be right either.
func (c *check) unchecked(event *conversationv1.Event) {
	c.notChecked++
	if c.notChecked == 1 {
		c.fault(ids.Seq(event.GetSeq()), fmt.Sprintf("cannot be checked from here by this version: its format is %d, this version knows %d. That is no sign of tampering",
			event.GetFormat(), chain.Format))
	}
}

// gap records that all events up to a seq are missing. The previous hash of the event after them cannot be checked.
func (c *check) gap(last ids.Seq) {
	first := ids.Seq(c.response.GetChecked() + 1)
	if first == last {
		c.fault(first, "it is missing")
	} else {
		c.fault(first, fmt.Sprintf("%d to %d are missing", first, last))
	}
	c.response.Checked, c.response.CheckedHash = uint64(last), nil
}

// gapOf returns the last missing seq, if the error is caused by a missing event.
func gapOf(err error) (last ids.Seq, gap bool) {
	if status.Code(err) != codes.DataLoss {
		return 0, false
	}
	missing, ok := rpc.Detail[*conversationv1.Range](err)
	return ids.Seq(missing.GetLast()), ok
}

// behind records a gap up to the seq last and continues after the next event. The previous hash of the next event is also
// missing, so that event cannot be checked.
func (c *check) behind(last, until ids.Seq) {
	if last >= until {
		c.missing(until)
		return
	}
	if last > ids.Seq(c.response.GetChecked()) {
		c.gap(last)
	} else {
		c.fault(last, "it is missing")
	}
	c.fault(last+1, "it cannot be checked: the event before it is missing")
	c.response.Checked, c.response.CheckedHash = uint64(last+1), nil
}

// missing records that the stretch ends early.
func (c *check) missing(until ids.Seq) {
	c.gap(until)
	if until == ids.Seq(c.head.GetHead()) {
		c.response.CheckedHash = c.head.GetHeadHash()
	}
}

func (c *check) fault(seq ids.Seq, problem string) {
	if len(c.response.GetFaults()) < maxFaults {
		c.response.Faults = append(c.response.Faults, &adminv1.Fault{Seq: uint64(seq), Problem: problem})
	}
}
