package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/pkg/terminal"
)

type verifyCommand struct {
	What           string       `arg:"" help:"Conversation id, or a user id for all conversations of that user."`
	HistoryAddress string       `help:"gRPC address of the history service." default:"127.0.0.1:9000"`
	TLS            certs.Config `embed:"" prefix:"tls."`
	JSON           bool         `name:"json" help:"Print one JSON object per conversation."`
}

// Run checks conversations. It returns an error if a conversation is broken.
func (v *verifyCommand) Run(ctx context.Context) error { return v.run(ctx, os.Stdout) }

func (v *verifyCommand) run(ctx context.Context, out io.Writer) (err error) {
	tel := telemetry.Discard()
	conn, err := rpc.Dial(v.HistoryAddress, rpc.ClientConfig{Service: rpc.RoleHistory, TLS: v.TLS}, tel)
	if err != nil {
		return fmt.Errorf("dial the history service: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	history := historyv1.NewHistoryServiceClient(conn)
	ids := []string{v.What}
	if !conversation.ValidID(v.What) {
		user, err := conversation.ParseUser(v.What)
		if err != nil {
			return fmt.Errorf("the user id %w", err)
		}
		if ids, err = conversationsOf(ctx, history, string(user)); err != nil {
			return err
		}
	}
	broken := 0
	for _, id := range ids {
		counts, err := verify(ctx, history, id)
		var found *chain.Broken
		switch {
		case errors.As(err, &found):
			broken++
			err = v.report(out, id, counts, found)
		case err != nil:
			err = fmt.Errorf("verify %s: %w", id, err)
		default:
			err = v.report(out, id, counts, nil)
		}
		if err != nil {
			return err
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d conversations do not verify", broken, len(ids))
	}
	return nil
}

// counts are the numbers of events of one log by verification result, up to the first event that does not verify.
type counts struct {
	verified, notChecked, erased uint64
}

func (c *counts) add(content chain.Content) {
	switch content {
	case chain.Verified:
		c.verified++
	case chain.NotChecked:
		c.notChecked++
	case chain.Erased:
		c.erased++
	}
}

// report is the result for one conversation; its field names are those of --json.
type report struct {
	Conversation string `json:"conversation"`
	// Events is the number of events whose place in the log was verified.
	Events uint64 `json:"events"`
	// ContentVerified, ContentNotChecked and Erased count the events by the state of their content.
	ContentVerified   uint64 `json:"content_verified"`
	ContentNotChecked uint64 `json:"content_not_checked"`
	Erased            uint64 `json:"erased"`
	Verified          bool   `json:"verified"`
	// Seq and Reason describe the event that was tampered with.
	Seq    uint64 `json:"seq,omitempty"`
	Reason string `json:"reason,omitempty"`
}

func (v *verifyCommand) report(out io.Writer, id string, c counts, broken *chain.Broken) error {
	r := report{
		Conversation: id, Events: c.verified + c.notChecked + c.erased,
		ContentVerified: c.verified, ContentNotChecked: c.notChecked, Erased: c.erased, Verified: broken == nil,
	}
	if broken != nil {
		r.Seq, r.Reason = uint64(broken.Seq), broken.Reason
	}
	if v.JSON {
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("print the report: %w", err)
		}
		_, err = out.Write(append(terminal.JSON(line), '\n'))
		return err
	}
	end := terminal.Safe("no hole, every hash is correct")
	if broken != nil {
		end = terminal.Sprintf("TAMPERED WITH at seq %d: %s", r.Seq, r.Reason)
	}
	return terminal.Fprintf(out, "%s  %8d events: %d verified, %d not checked, %d erased; %s\n",
		terminal.Name(id), r.Events, c.verified, c.notChecked, c.erased, end)
}

func conversationsOf(ctx context.Context, history historyv1.HistoryServiceClient, user string) ([]string, error) {
	var ids []string
	request := &historyv1.ListConversationsRequest{UserId: user, Limit: rpc.MaxItems}
	for {
		page, err := history.ListConversations(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("list conversations of %s: %w", user, err)
		}
		for _, s := range page.GetConversations() {
			ids = append(ids, s.GetConversationId())
		}
		if !page.GetMore() || len(ids) == 0 {
			return ids, nil
		}
		request.After = ids[len(ids)-1]
	}
}

// progressEvery is how often a long check prints its progress.
const progressEvery = 2 * time.Second

// verify reads a whole log and checks every event. It also checks that no event is missing at the end, and the hash of
// the head.
func verify(ctx context.Context, history historyv1.HistoryServiceClient, id string) (c counts, err error) {
	heads, err := history.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: []string{id}})
	if err != nil {
		return c, fmt.Errorf("read the head: %w", err)
	}
	if len(heads.GetHeads()) == 0 {
		return c, errors.New("there is no such conversation")
	}
	head := heads.GetHeads()[0]
	// The first event must be seq 1 without a predecessor, so the chain begins at a seq 0 whose hash is zero.
	v := chain.From(0, chain.Zero)
	told := time.Now()
	for v.Seq() < ids.Seq(head.GetHead()) {
		page, err := history.Read(ctx, &historyv1.ReadRequest{ConversationId: id, After: uint64(v.Seq()), Limit: rpc.MaxItems})
		if status.Code(err) == codes.DataLoss {
			if gap, ok := rpc.Detail[*conversationv1.Range](err); ok {
				return c, &chain.Broken{ConversationID: ids.Conversation(id), Seq: ids.Seq(gap.GetLast() + 1), Reason: fmt.Sprintf("follows seq %d: the events between them are missing", v.Seq())}
			}
		}
		if err != nil {
			return c, fmt.Errorf("read after seq %d: %w", v.Seq(), err)
		}
		for _, event := range page.GetEvents() {
			content, err := v.Next(event)
			if err != nil {
				return c, err
			}
			c.add(content)
			if v.Seq() == ids.Seq(head.GetHead()) && !bytes.Equal(event.GetHash(), head.GetHeadHash()) {
				return c, &chain.Broken{ConversationID: ids.Conversation(id), Seq: v.Seq(), Reason: "its hash is not the hash of the conversation's head"}
			}
		}
		if len(page.GetEvents()) == 0 {
			return c, &chain.Broken{ConversationID: ids.Conversation(id), Seq: v.Seq() + 1, Reason: fmt.Sprintf("it is missing, and so are all events up to seq %d", head.GetHead())}
		}
		if time.Since(told) > progressEvery {
			told = time.Now()
			_ = terminal.Fprintf(os.Stderr, "%s: %d of %d events\n", terminal.Name(id), v.Seq(), head.GetHead())
		}
	}
	return c, nil
}
