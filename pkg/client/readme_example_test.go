package client_test

import (
	"context"
	"fmt"

	"github.com/runnelhq/runnel/pkg/client"
)

// This is the program in README.md. README.md contains the function greet verbatim.

func greet(ctx context.Context, url string, token func(context.Context) (string, error), show func(sender, text string)) error {
	c, err := client.New(client.Config{
		URL:      url, // ws://127.0.0.1:8080/v1/ws
		DeviceID: "laptop",
		Token:    token, // a JWT; called again before it expires
		OnEvent: func(_ context.Context, event client.Event) {
			if message := event.GetBody().GetMessage(); message != nil {
				show(event.GetSender(), message.GetText())
			}
		},
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Start(ctx); err != nil {
		return err
	}
	conversation, err := c.OpenDirect(ctx, "bob")
	if err != nil {
		return err
	}
	outcome, err := c.Send(ctx, conversation, "hello") // returns when it is committed
	if err != nil {
		return err
	}
	fmt.Println("committed as number", outcome.GetSeq())
	return nil
}

func Example_readme() {
	url, stop := exampleGateway()
	defer stop()
	token := func(context.Context) (string, error) { return "a token of alice", nil }
	if err := greet(context.Background(), url, token, func(string, string) {}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// committed as number 2
}
