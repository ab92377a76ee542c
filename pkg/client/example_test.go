package client_test

import (
	"context"
	"fmt"

	"github.com/runnelhq/runnel/pkg/client"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// A program that prints received messages and sends one message.
func Example() {
	url, stop := exampleGateway()
	defer stop()

	ctx := context.Background()
	shown := make(chan struct{})
	c, err := client.New(client.Config{
		URL:      url,
		DeviceID: "laptop",
		Token:    func(context.Context) (string, error) { return "a token of alice", nil },
		OnEvent: func(_ context.Context, event client.Event) {
			if message := event.GetBody().GetMessage(); message != nil {
				fmt.Printf("%d %s: %s\n", event.GetSeq(), event.GetSender(), message.GetText())
				close(shown)
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	id, err := c.CreateGroup(ctx, "friends", "bob")
	if err != nil {
		fmt.Println(err)
		return
	}
	outcome, err := c.Send(ctx, id, "hello")
	if err != nil {
		fmt.Println(err)
		return
	}
	<-shown
	fmt.Println("committed as", outcome.GetSeq())
	// Output:
	// 2 alice: hello
	// committed as 2
}

// A message is edited, gets a reaction and is deleted. The program prints the message after each step.
func ExampleClient_ReadMessagesAfter() {
	url, stop := exampleGateway()
	defer stop()

	ctx := context.Background()
	c, err := client.New(client.Config{
		URL: url, DeviceID: "laptop", Token: func(context.Context) (string, error) { return "a token of alice", nil },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	id, err := c.CreateGroup(ctx, "friends", "bob")
	if err != nil {
		fmt.Println(err)
		return
	}
	show := func(outcome *conversationv1.Outcome, err error) uint64 {
		if err != nil {
			fmt.Println(err)
			return 0
		}
		page, err := c.ReadMessagesAfter(ctx, id, 0, 10)
		if err != nil {
			fmt.Println(err)
			return 0
		}
		for _, message := range page.GetMessages() {
			fmt.Printf("%d %q edited=%t deleted=%t", message.GetSeq(), message.GetMessage().GetText(), message.GetEditSeq() != 0, message.GetDeletedSeq() != 0)
			for _, reaction := range message.GetReactions() {
				fmt.Printf(" %s×%d", reaction.GetEmoji(), reaction.GetCount())
			}
			fmt.Println()
		}
		return outcome.GetSeq()
	}
	message := show(c.Send(ctx, id, "helo"))
	show(c.Edit(ctx, id, message, "hello"))
	show(c.React(ctx, id, message, "👋"))
	show(c.Unreact(ctx, id, message, "👋"))
	show(c.Delete(ctx, id, message))
	// Output:
	// 2 "helo" edited=false deleted=false
	// 2 "hello" edited=true deleted=false
	// 2 "hello" edited=true deleted=false 👋×1
	// 2 "hello" edited=true deleted=false
	// 2 "" edited=true deleted=true
}

// exampleGateway replaces a real gateway.
func exampleGateway() (url string, stop func()) {
	var h *history
	return serveWebSocket([]string{"runnel.v1.proto"}, func(f *clientv1.ClientFrame) ([]*clientv1.ServerFrame, error) {
		switch {
		case f.GetConnect() != nil:
			return []*clientv1.ServerFrame{{Id: f.GetId(), Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{UserId: "alice"}}}}, nil
		case f.GetSubmit().GetBody().GetCreate() != nil:
			h = newHistory(1)
			outcome := &conversationv1.Outcome{ConversationId: h.id, CommandId: f.GetSubmit().GetCommandId(), Seq: 1}
			return []*clientv1.ServerFrame{attach(h.info()), h.push(1), {Id: f.GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: outcome}}}, nil
		case f.GetReadMessages() != nil:
			return []*clientv1.ServerFrame{{Id: f.GetId(), Message: &clientv1.ServerFrame_Messages{Messages: h.messages()}}}, nil
		case f.GetSubmit() != nil:
			event, refusal := h.apply("alice", f.GetSubmit().GetCommandId(), f.GetSubmit().GetBody())
			if refusal != nil {
				return []*clientv1.ServerFrame{{Id: f.GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{Error: refusal}}}}, nil
			}
			return []*clientv1.ServerFrame{h.push(event.GetSeq()), commit(f, event.GetSeq())}, nil
		}
		return nil, nil
	})
}
