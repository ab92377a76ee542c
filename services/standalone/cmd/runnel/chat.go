package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
)

type chatCommand struct {
	User    string      `arg:"" help:"Your user id."`
	With    string      `help:"User to write to. Without it, use /open USER." placeholder:"USER"`
	URL     string      `name:"url" help:"WebSocket address of the gateway." default:"ws://127.0.0.1:8080/v1/ws"`
	Codec   frame.Codec `help:"Encoding on the wire: proto or json." default:"proto" placeholder:"CODEC"`
	DataDir string      `help:"The server's data directory, for its development secret." default:"./runnel-data" type:"path"`
	Auth    auth.Config `embed:"" prefix:"auth."`
}

const chatHelp = `Write a line to send it. Commands:
  /open USER            talk to a user
  /group NAME USER...   make a group and talk in it
  /add USER             add a user to the group
  /list                 show your conversations
  /go N                 talk in conversation N of the list
  /leave                leave the group
  /edit N TEXT          change the text of your message #N
  /delete N             delete message #N for everyone
  /react N EMOJI        react to message #N
  /unreact N EMOJI      remove your reaction
  /help                 show this
  /quit                 end
Ticks: ○ sending  ✓ committed  ✓✓ delivered k of n  ✓✓ read k of n`

// chat is a chat session at a terminal. All output goes through it, a whole line at a time.
type chat struct {
	me     string
	client *client.Client
	out    io.Writer

	mu            sync.Mutex
	current       string
	conversations []*clientv1.Conversation
	mine          map[string]map[uint64]*sent // my own messages and their progress, by conversation and seq
}

type sent struct {
	text  string
	ticks string
}

// Run chats until the input ends.
func (c *chatCommand) Run(ctx context.Context) error { return c.chat(ctx, os.Stdin, os.Stdout) }

func (c *chatCommand) chat(ctx context.Context, in io.Reader, out io.Writer) error {
	ch := &chat{me: c.User, out: out, mine: map[string]map[uint64]*sent{}}
	cl, err := client.New(client.Config{
		URL: c.URL, Codec: c.Codec, DeviceID: "cli-" + uuid.NewString()[:8], Software: "runnel-chat/1", Start: clientv1.Start_START_FIRST,
		Token:      func(context.Context) (string, error) { return mint(c.Auth, c.DataDir, c.User, time.Hour) },
		OnEvent:    func(_ context.Context, event client.Event) { ch.event(event) },
		OnReceipt:  ch.receipt,
		OnAttached: ch.attached,
		OnDetached: ch.detached,
		OnState:    func(state client.State) { ch.printf("· %s", state) },
		OnForked:   ch.forked,
		OnBroken:   func(err error) { ch.printf("! the log does not verify: %v", err) },
	})
	if err != nil {
		return err
	}
	ch.client = cl
	if err := cl.Start(ctx); err != nil {
		return err
	}
	err = ch.talk(ctx, c.With, in)
	if ended := cl.Close(); err == nil { // otherwise the error is the one already shown
		err = ended
	}
	return err
}

func (c *chat) talk(ctx context.Context, with string, in io.Reader) error {
	c.printf("%s", chatHelp)
	if err := c.client.Ready(ctx); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if with != "" {
		c.open(ctx, with)
	}
	lines := make(chan string)
	go func() { // this goroutine ends with the input or with the process: a read of a terminal cannot be interrupted
		defer close(lines)
		scanner := bufio.NewScanner(in)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.client.Ended():
			return c.client.Err()
		case line, more := <-lines:
			if !more || line == "/quit" {
				return nil
			}
			c.line(ctx, strings.TrimSpace(line))
		}
	}
}

func (c *chat) line(ctx context.Context, line string) {
	words := strings.Fields(line)
	c.mu.Lock()
	current := c.current
	c.mu.Unlock()
	var err error
	switch {
	case line == "":
	case words[0] == "/open" && len(words) == 2:
		c.open(ctx, words[1])
	case words[0] == "/group" && len(words) > 2:
		var id string
		if id, err = c.client.CreateGroup(ctx, words[1], words[2:]...); err == nil {
			c.enter(id, words[1])
		}
	case words[0] == "/add" && len(words) == 2:
		_, err = c.client.AddMembers(ctx, current, words[1])
	case words[0] == "/leave":
		_, err = c.client.Leave(ctx, current)
	case slices.Contains(changes, words[0]) && current != "":
		err = c.change(ctx, current, line)
	case words[0] == "/list":
		c.list()
	case words[0] == "/go" && len(words) == 2:
		c.goTo(words[1])
	case words[0] == "/help":
		c.printf("%s", chatHelp)
	case line[0] == '/':
		c.printf("! unknown command; /help lists all commands")
	case current == "":
		c.printf("! open a conversation first: /open USER")
	default:
		c.send(ctx, current, line)
	}
	if err != nil {
		c.printf("! %v", err)
	}
}

func (c *chat) open(ctx context.Context, user string) {
	id, err := c.client.OpenDirect(ctx, user)
	if err != nil {
		c.printf("! %v", err)
		return
	}
	c.enter(id, user)
}

func (c *chat) enter(id, name string) {
	c.mu.Lock()
	c.current = id
	c.mu.Unlock()
	c.printf("· you are talking with %s", name)
	c.markRead(id)
}

// send puts a line into the outbox; its ticks are printed as they change.
func (c *chat) send(ctx context.Context, id, text string) {
	c.printf("○ %s", text)
	ticket, err := c.client.Enqueue(id, &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}})
	if err != nil {
		c.printf("! %v", err)
		return
	}
	go func() { // this goroutine ends with the ticket, which ends with the client
		outcome, err := ticket.Wait(ctx)
		if err != nil {
			c.printf("! %q was not sent: %v", text, err)
			return
		}
		c.tick(id, outcome.GetSeq(), text, "✓ committed as "+strconv.FormatUint(outcome.GetSeq(), 10))
	}()
}

func (c *chat) tick(id string, seq uint64, text, ticks string) {
	c.mu.Lock()
	if c.mine[id] == nil {
		c.mine[id] = map[uint64]*sent{}
	}
	if c.mine[id][seq] == nil {
		c.mine[id][seq] = &sent{text: text}
	}
	changed := c.mine[id][seq].ticks != ticks
	c.mine[id][seq].ticks = ticks
	c.mu.Unlock()
	if changed {
		c.printf("  %s: %s", ticks, text)
	}
}

func (c *chat) receipt(receipt *conversationv1.Receipt) {
	c.mu.Lock()
	mine := make(map[uint64]string, len(c.mine[receipt.GetConversationId()]))
	for seq, s := range c.mine[receipt.GetConversationId()] {
		mine[seq] = s.text
	}
	c.mu.Unlock()
	others := int(receipt.GetMembers()) - 1
	for seq, text := range mine {
		delivered, read := reached(receipt.GetDelivered(), seq)-1, reached(receipt.GetRead(), seq)-1
		switch {
		case read > 0:
			c.tick(receipt.GetConversationId(), seq, text, fmt.Sprintf("✓✓ read %d of %d", read, others))
		case delivered > 0:
			c.tick(receipt.GetConversationId(), seq, text, fmt.Sprintf("✓✓ delivered %d of %d", delivered, others))
		}
	}
}

// reached counts the members whose cursor is at seq or later, including the sender.
func reached(steps []*conversationv1.Step, seq uint64) int {
	k := 0
	for _, step := range steps {
		if step.GetSeq() < seq {
			break
		}
		k = int(step.GetMembers())
	}
	return k
}

func (c *chat) attached(conversation *clientv1.Conversation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conversations = append(c.conversations, conversation)
	if c.current == "" {
		c.current = conversation.GetConversationId()
	}
}

func (c *chat) detached(detached *clientv1.Detached) {
	c.mu.Lock()
	c.conversations = slices.DeleteFunc(c.conversations, func(conv *clientv1.Conversation) bool {
		return conv.GetConversationId() == detached.GetConversationId()
	})
	if c.current == detached.GetConversationId() {
		c.current = ""
	}
	c.mu.Unlock()
	c.printf("· you are no longer in a conversation; /list shows the others")
}

func (c *chat) list() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, conv := range c.conversations {
		mark := " "
		if conv.GetConversationId() == c.current {
			mark = "*"
		}
		fmt.Fprintf(c.out, "%s %2d  %s  %s\n", mark, i+1, label(conv), conv.GetConversationId())
	}
}

func (c *chat) goTo(word string) {
	n, err := strconv.Atoi(word)
	c.mu.Lock()
	valid := err == nil && n >= 1 && n <= len(c.conversations)
	id := ""
	if valid {
		id = c.conversations[n-1].GetConversationId()
	}
	c.mu.Unlock()
	if !valid {
		c.printf("! there is no conversation %s; see /list", word)
		return
	}
	c.enter(id, c.name(id))
}

func (c *chat) markRead(id string) {
	if seq, known := c.client.Position(id); known && seq > 0 {
		c.client.MarkRead(id, seq)
	}
}

func (c *chat) name(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conv := range c.conversations {
		if conv.GetConversationId() == id {
			return label(conv)
		}
	}
	return id
}

func label(conv *clientv1.Conversation) string {
	switch {
	case conv.GetPeer() != "":
		return conv.GetPeer()
	case conv.GetName() != "":
		return conv.GetName()
	default:
		return conv.GetConversationId()
	}
}

func (c *chat) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.out, format+"\n", args...)
}
