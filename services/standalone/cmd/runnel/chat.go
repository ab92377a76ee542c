package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
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
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/terminal"
)

type chatCommand struct {
	User    string      `arg:"" help:"Your user id."`
	With    string      `help:"User to write to. Without it, use /open USER." placeholder:"USER"`
	URL     string      `name:"url" help:"WebSocket address of the gateway." default:"ws://127.0.0.1:8080/v1/ws"`
	Codec   frame.Codec `help:"Encoding on the wire: proto or json." default:"proto" placeholder:"CODEC"`
	DataDir string      `help:"The server's data directory, for its development secret." default:"./runnel-data" type:"path"`
	Auth    auth.Config `embed:"" prefix:"auth."`

	Wait time.Duration `help:"How long to wait for a connection, for the outcome of a command and, at the end, for the next message to be committed." default:"10s" range:"0..1h"`
}

// Help is the long text of --help.
func (*chatCommand) Help() string {
	return `Lines of the standard input are messages. At its end, at /quit and at Ctrl-C the program waits until every message is
committed, and lists those that are not. The exit code is 1 if anything was not sent; at the end of the input, also if a line
was refused.

  echo hello | runnel chat alice --with bob`
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

// chat is a chat session at a terminal. All output goes through printf, one whole line at a time.
type chat struct {
	me     string
	client *client.Client
	out    io.Writer
	wait   time.Duration
	// unsent has an entry for each message without an outcome. watching counts the goroutines that wait for those
	// outcomes.
	unsent   chan struct{}
	watching sync.WaitGroup

	mu            sync.Mutex
	current       string
	conversations []*clientv1.Conversation
	mine          map[string]map[uint64]*ticked // my own messages and their ticks, by conversation and seq
	sending       map[*client.Ticket]string     // the text of each message without an outcome
	failures      int                           // number of lines that were not carried out
	progressed    func()                        // called with each outcome while the chat ends; nil before
}

type ticked struct {
	text, commandID string
	ticks           string
}

func newChat(me string, out io.Writer, wait time.Duration) *chat {
	return &chat{
		me: me, out: out, wait: wait, unsent: make(chan struct{}, maxUnsent),
		mine: map[string]map[uint64]*ticked{}, sending: map[*client.Ticket]string{},
	}
}

// Run chats until the input ends.
func (c *chatCommand) Run(ctx context.Context) error { return c.chat(ctx, os.Stdin, os.Stdout) }

func (c *chatCommand) chat(ctx context.Context, in io.Reader, out io.Writer) error {
	me, err := conversation.ParseUser(c.User)
	if err != nil {
		return fmt.Errorf("your user id %w", err)
	}
	ch := newChat(string(me), out, cmp.Or(c.Wait, 10*time.Second))
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
	// The client outlives ctx, so that it can still send its outbox after a signal.
	if err := cl.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	inputEnded, err := ch.talk(ctx, c.With, in)
	err = errors.Join(err, ch.finish(ctx))
	if ended := cl.Close(); err == nil { // if err is set, that error was already shown
		err = ended
	}
	ch.watching.Wait()
	if err == nil && inputEnded && ch.failures > 0 {
		err = fmt.Errorf("lines that were not carried out: %d", ch.failures)
	}
	return err
}

// talk carries out input lines until the input ends, until /quit or until ctx ends.
func (c *chat) talk(ctx context.Context, with string, in io.Reader) (inputEnded bool, err error) {
	c.printf(chatHelp)
	if err := c.connect(ctx); err != nil {
		return false, err
	}
	if with != "" {
		if err := c.open(ctx, with); err != nil {
			return false, fmt.Errorf("open the conversation with %s: %w", with, err)
		}
	}
	ended := make(chan struct{})
	defer close(ended)
	lines := readLines(in, ended)
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-c.client.Ended():
			return false, c.client.Err()
		case next := <-lines:
			switch {
			case errors.Is(next.err, errLongLine), errors.Is(next.err, errNotUTF8):
				c.failf("%v", next.err)
			case errors.Is(next.err, io.EOF):
				return true, nil
			case next.err != nil:
				return true, fmt.Errorf("read the input: %w", next.err)
			case strings.TrimSpace(next.line) == "/quit":
				return false, nil
			default:
				if err := c.line(ctx, next.line); err != nil {
					return false, err
				}
			}
		}
	}
}

func (c *chat) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	if err := c.client.Ready(ctx); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// line carries out one line. It returns an error only if no further lines can be carried out.
func (c *chat) line(ctx context.Context, line string) (fatal error) {
	words := strings.Fields(line)
	c.mu.Lock()
	current := c.current
	c.mu.Unlock()
	if len(words) == 0 {
		return nil
	}
	if words[0][0] != '/' {
		if current == "" {
			c.failf("open a conversation first: /open USER")
			return nil
		}
		return c.send(ctx, current, line)
	}
	asking, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	if err := c.command(asking, current, words, strings.TrimSpace(line)); err != nil {
		c.failf("%v", err)
	}
	return nil
}

// command carries out a line that begins with a slash.
func (c *chat) command(ctx context.Context, current string, words []string, line string) (err error) {
	switch {
	case words[0] == "/open" && len(words) == 2:
		err = c.open(ctx, words[1])
	case words[0] == "/group" && len(words) > 2:
		var id string
		var members []string
		if members, err = parseUsers(words[2:]); err != nil {
			break
		}
		if id, err = c.client.CreateGroup(ctx, words[1], members...); err == nil {
			c.enter(id, words[1])
		}
	case words[0] == "/add" && len(words) == 2:
		var added []string
		if added, err = parseUsers(words[1:]); err == nil {
			_, err = c.client.AddMembers(ctx, current, added...)
		}
	case words[0] == "/leave":
		_, err = c.client.Leave(ctx, current)
	case slices.Contains(changes, words[0]) && current != "":
		err = c.change(ctx, current, line)
	case words[0] == "/list":
		c.list()
	case words[0] == "/go" && len(words) == 2:
		err = c.goTo(words[1])
	case words[0] == "/help":
		c.printf(chatHelp)
	default:
		err = errors.New("unknown command; /help lists all commands")
	}
	return err
}

// parseUsers returns the user ids for the names that a person typed.
func parseUsers(typed []string) ([]string, error) {
	users := make([]string, len(typed))
	for i, name := range typed {
		user, err := conversation.ParseUser(name)
		if err != nil {
			return nil, fmt.Errorf("user id %d of %d %w", i+1, len(typed), err)
		}
		users[i] = string(user)
	}
	return users, nil
}

func (c *chat) open(ctx context.Context, user string) error {
	users, err := parseUsers([]string{user})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	id, err := c.client.OpenDirect(ctx, users[0])
	if err != nil {
		return err
	}
	c.enter(id, user)
	return nil
}

func (c *chat) enter(id, name string) {
	c.mu.Lock()
	c.current = id
	c.mu.Unlock()
	c.printf("· you are talking with %s", terminal.Name(name))
	c.markRead(id)
}

// commit shows that a message of the user was committed.
func (c *chat) commit(outcome *conversationv1.Outcome, commandID, text string) {
	id, seq := outcome.GetConversationId(), outcome.GetSeq()
	c.mu.Lock()
	if c.mine[id] == nil {
		c.mine[id] = map[uint64]*ticked{}
	}
	if c.mine[id][seq] == nil {
		c.mine[id][seq] = &ticked{text: text, commandID: commandID}
	}
	c.mu.Unlock()
	c.tick(id, seq, "✓ committed as "+strconv.FormatUint(seq, 10))
}

// tick shows the progress of a message if the progress changed. A message that was undone meanwhile shows no progress.
func (c *chat) tick(id string, seq uint64, ticks string) {
	c.mu.Lock()
	message := c.mine[id][seq]
	if message == nil || message.ticks == ticks {
		c.mu.Unlock()
		return
	}
	message.ticks = ticks
	c.mu.Unlock()
	c.printf("  %s: %s", ticks, message.text)
}

func (c *chat) receipt(receipt *conversationv1.Receipt) {
	c.mu.Lock()
	seqs := slices.Sorted(maps.Keys(c.mine[receipt.GetConversationId()]))
	c.mu.Unlock()
	others := int(receipt.GetMembers()) - 1
	for _, seq := range seqs {
		delivered, read := reached(receipt.GetDelivered(), seq)-1, reached(receipt.GetRead(), seq)-1
		switch {
		case read > 0:
			c.tick(receipt.GetConversationId(), seq, fmt.Sprintf("✓✓ read %d of %d", read, others))
		case delivered > 0:
			c.tick(receipt.GetConversationId(), seq, fmt.Sprintf("✓✓ delivered %d of %d", delivered, others))
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
	conversations, current := slices.Clone(c.conversations), c.current
	c.mu.Unlock()
	for i, conv := range conversations {
		mark := " "
		if conv.GetConversationId() == current {
			mark = "*"
		}
		c.printf("%s %2d  %s  %s", mark, i+1, terminal.Name(label(conv)), terminal.Name(conv.GetConversationId()))
	}
}

func (c *chat) goTo(word string) error {
	n, err := strconv.Atoi(word)
	c.mu.Lock()
	valid := err == nil && n >= 1 && n <= len(c.conversations)
	id := ""
	if valid {
		id = c.conversations[n-1].GetConversationId()
	}
	c.mu.Unlock()
	if !valid {
		return fmt.Errorf("there is no conversation %s; see /list", word)
	}
	c.enter(id, c.name(id))
	return nil
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
		return conversation.OriginalUser(ids.User(conv.GetPeer()))
	case conv.GetName() != "":
		return conv.GetName()
	default:
		return conv.GetConversationId()
	}
}

// printf prints a line. Texts among the arguments come from other people, so they are made safe for the terminal.
func (c *chat) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = terminal.Fprintf(c.out, format+"\n", args...) // if the terminal is gone, the error cannot be reported
}
