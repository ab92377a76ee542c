package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

type verifyCommand struct {
	What           string       `arg:"" help:"Conversation id, or a user id for all conversations of that user."`
	HistoryAddress string       `help:"gRPC address of the history service." default:"127.0.0.1:9000"`
	TLS            certs.Config `embed:"" prefix:"tls."`
	JSON           bool         `name:"json" help:"Print one JSON object a conversation."`
}

// Run checks conversations and fails when one is broken.
func (v *verifyCommand) Run(ctx context.Context) (err error) {
	tel := telemetry.Discard()
	conn, err := rpc.Dial(v.HistoryAddress, rpc.ClientConfig{Service: rpc.RoleHistory, TLS: v.TLS}, tel)
	if err != nil {
		return fmt.Errorf("dial the history service: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	history := historyv1.NewHistoryServiceClient(conn)
	ids := []string{v.What}
	if !conversation.ValidID(v.What) {
		if ids, err = conversationsOf(ctx, history, v.What); err != nil {
			return err
		}
	}
	broken := 0
	for _, id := range ids {
		events, err := verify(ctx, history, id)
		var found *chain.Broken
		switch {
		case errors.As(err, &found):
			broken++
			v.report(id, events, found)
		case err != nil:
			return fmt.Errorf("verify %s: %w", id, err)
		default:
			v.report(id, events, nil)
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d conversations do not verify", broken, len(ids))
	}
	return nil
}

func (v *verifyCommand) report(id string, events uint64, broken *chain.Broken) {
	switch {
	case v.JSON && broken == nil:
		fmt.Printf(`{"conversation":%q,"events":%d,"verified":true}`+"\n", id, events)
	case v.JSON:
		fmt.Printf(`{"conversation":%q,"events":%d,"verified":false,"seq":%d,"reason":%q}`+"\n", id, events, broken.Seq, broken.Reason)
	case broken == nil:
		fmt.Printf("%s  %8d events  verified\n", id, events)
	default:
		fmt.Printf("%s  %8d events  BROKEN at seq %d: %s\n", id, events, broken.Seq, broken.Reason)
	}
}

func conversationsOf(ctx context.Context, history historyv1.HistoryServiceClient, user string) ([]string, error) {
	var ids []string
	request := &historyv1.ListConversationsRequest{UserId: user, Limit: 1000}
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

// progressEvery is how often a long check says how far it is.
const progressEvery = 2 * time.Second

// verify reads a whole log and checks every event, that none is missing at the end, and the hash of the head.
func verify(ctx context.Context, history historyv1.HistoryServiceClient, id string) (uint64, error) {
	heads, err := history.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: []string{id}})
	if err != nil {
		return 0, fmt.Errorf("read the head: %w", err)
	}
	if len(heads.GetHeads()) == 0 {
		return 0, errors.New("there is no such conversation")
	}
	head := heads.GetHeads()[0]
	// The first event must be seq 1 with nothing before it, so the chain begins at a seq 0 whose hash is zero.
	v := chain.From(0, chain.Zero)
	told := time.Now()
	for v.Seq() < head.GetHead() {
		page, err := history.Read(ctx, &historyv1.ReadRequest{ConversationId: id, After: v.Seq(), Limit: 1000})
		if err != nil {
			return v.Seq(), fmt.Errorf("read after seq %d: %w", v.Seq(), err)
		}
		for _, event := range page.GetEvents() {
			if err := v.Next(event); err != nil {
				return v.Seq(), err
			}
			if v.Seq() == head.GetHead() && !bytes.Equal(event.GetHash(), head.GetHeadHash()) {
				return v.Seq(), &chain.Broken{ConversationID: id, Seq: v.Seq(), Reason: "it is not the event that the conversation's head was taken from"}
			}
		}
		if len(page.GetEvents()) == 0 {
			return v.Seq(), &chain.Broken{ConversationID: id, Seq: v.Seq() + 1, Reason: fmt.Sprintf("it is missing, with all up to seq %d", head.GetHead())}
		}
		if time.Since(told) > progressEvery {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "%s: %d of %d events\n", id, v.Seq(), head.GetHead())
		}
	}
	return v.Seq(), nil
}
