// Command skewclient is a client for tests of mixed versions. It reads bodies of commands from standard input, one per
// line in protobuf JSON. It sends each command and prints its outcome. It also prints every event, with the result of
// verifying the event's content. It can be built with the schema of either version, and contains no code for single
// kinds.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/buildinfo"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/e2e/skew"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "skewclient:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	url := flag.String("url", "", "WebSocket address of a gateway")
	conversation := flag.String("conversation", "", "conversation to send to")
	device := flag.String("device", "skew", "name of the device")
	asJSON := flag.Bool("json", false, "use JSON frames")
	version := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *version {
		fmt.Println("skewclient", buildinfo.Read())
		return nil
	}

	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	say := func(line skew.Line) {
		mu.Lock()
		defer mu.Unlock()
		if err := out.Encode(line); err != nil {
			fmt.Fprintln(os.Stderr, "skewclient: nobody reads any more:", err)
		}
	}
	codec := frame.Proto
	if *asJSON {
		codec = frame.JSON
	}
	c, err := client.New(client.Config{
		URL: *url, DeviceID: *device, Codec: codec, Start: clientv1.Start_START_FIRST,
		Log:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Token: func(context.Context) (string, error) { return os.Getenv("SKEW_TOKEN"), nil },
		OnEvent: func(_ context.Context, event client.Event) {
			say(skew.Line{Seq: event.GetSeq(), Kind: int32(event.GetKind()), Content: event.Content.String(), Known: event.GetBody().GetAction() != nil})
		},
		OnBroken: func(err error) { say(skew.Line{Broken: err.Error()}) },
	})
	if err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		body := &conversationv1.Body{}
		if err := protojson.Unmarshal(lines.Bytes(), body); err != nil {
			return fmt.Errorf("read a body: %w", err)
		}
		outcome, err := c.Submit(ctx, *conversation, body)
		if err != nil {
			say(skew.Line{Refused: err.Error()})
			continue
		}
		say(skew.Line{Committed: outcome.GetSeq()})
	}
	return errors.Join(lines.Err(), c.Close())
}
