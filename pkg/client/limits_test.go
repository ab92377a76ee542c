package client_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// limited is a gateway's answer to connect with limits below those of the protocol.
func limited() *clientv1.Connected {
	return &clientv1.Connected{Limits: &clientv1.Limits{
		MaxFrameBytes: 4000, MaxFrames: 3, MaxAttempt: 2, MaxTextBytes: 10, MaxMetadataEntries: 1, MaxMetadataKeyBytes: 4, MaxMetadataValueBytes: 5,
		MaxNameBytes: 6, MaxMembers: 4, MaxMembersPerAdd: 2, MaxEmojiBytes: 8, MaxPage: 20, MaxMessagesPage: 7, MaxOpenRequests: 2,
	}}
}

func names(n int) []string {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprint("user", i)
	}
	return users
}

// bodiesOf are bodies with something of that size, by the field that has it.
func bodiesOf(limits *clientv1.Limits, more int) map[string]*conversationv1.Body {
	size := func(limit uint32) string { return strings.Repeat("x", int(limit)+more) }
	long := size(limits.GetMaxTextBytes())
	entries := map[string]string{}
	for i := range int(limits.GetMaxMetadataEntries()) + more {
		entries[strconv.Itoa(i)] = ""
	}
	key, value := map[string]string{size(limits.GetMaxMetadataKeyBytes()): ""}, map[string]string{"k": size(limits.GetMaxMetadataValueBytes())}
	message := func(text string, metadata map[string]string) *conversationv1.Body {
		return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text, Metadata: metadata}}}
	}
	edit := func(text string, metadata map[string]string) *conversationv1.Body {
		return &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 1, Text: text, Metadata: metadata}}}
	}
	return map[string]*conversationv1.Body{
		"submit.body.message.text":       message(long, nil),
		"submit.body.message.metadata":   message("", entries),
		"submit.body.edit.text":          edit(long, nil),
		"submit.body.edit.metadata":      edit("", key),
		"submit.body.message.metadata.k": message("", value),
		"submit.body.rename.name": {Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{
			Name: size(limits.GetMaxNameBytes()),
		}}},
		"submit.body.create.name": {Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Name: size(limits.GetMaxNameBytes()),
		}}},
		"submit.body.create.members": {Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Members: names(int(limits.GetMaxMembers()) - 1 + more),
		}}},
		"submit.body.add_members.members": {Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{
			Members: names(int(limits.GetMaxMembersPerAdd()) + more),
		}}},
		"submit.body.react.emoji": {Action: &conversationv1.Body_React{React: &conversationv1.React{
			Target: 1, Emoji: size(limits.GetMaxEmojiBytes()),
		}}},
	}
}

// A command at the limits of the gateway is sent. One above is refused before it is sent, with the error that the gateway would
// answer. A gateway that does not name its limits has those of the protocol.
func TestCommandsAboveTheLimitsAreNotSent(t *testing.T) {
	for name, answer := range map[string]func() *clientv1.Connected{
		"a gateway with small limits":     limited,
		"a gateway older than the limits": func() *clientv1.Connected { return &clientv1.Connected{MaxFrameBytes: protocol.MaxFrameBytes} },
		"a gateway with larger limits": func() *clientv1.Connected {
			return &clientv1.Connected{MaxFrameBytes: 1 << 20, Limits: &clientv1.Limits{MaxFrameBytes: 1 << 20, MaxTextBytes: 100_000, MaxMembers: 3000}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				c, _ := start(t, g)
				l, _ := g.accept(t, answer())
				synctest.Wait()
				limits := c.Limits()
				submit := func(body *conversationv1.Body) *client.Ticket {
					ticket, err := c.Enqueue(map[bool]string{true: "", false: uuid.NewString()}[body.GetCreate() != nil], body)
					require.NoError(t, err)
					return ticket
				}
				for field, body := range bodiesOf(limits, 0) {
					ticket := submit(body)
					l.send(commit(l.recv(t), 1))
					_, err := ticket.Wait(t.Context())
					require.NoError(t, err, field)
				}
				for field, body := range bodiesOf(limits, 1) {
					_, err := submit(body).Wait(t.Context())
					refused, typed := errors.AsType[*client.RefusedError](err)
					require.True(t, typed, "%s: %v", field, err)
					require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_INVALID, refused.Code)
					require.Equal(t, field, refused.Field)
				}
				l.silent(t)
			})
		})
	}
}

// Pages above the limit are refused before they are asked for; lists ask for as much as the gateway allows.
func TestReadsKeepTheLimitsOfTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		listed := make(chan error, 1)
		go func() { // before the limits are known
			for _, err := range c.Members(t.Context(), "a") {
				listed <- err
			}
			listed <- nil
		}()
		synctest.Wait()
		l, _ := g.accept(t, limited())
		f := l.recv(t)
		require.Equal(t, uint32(20), f.GetListMembers().GetLimit())
		l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Members{Members: &clientv1.Members{}}})
		require.NoError(t, <-listed)

		for limit, field := range map[int]string{20: "", 21: "read.limit"} {
			read := make(chan error, 1)
			go func() {
				_, err := c.ReadAfter(t.Context(), "a", 0, limit)
				read <- err
			}()
			if field == "" {
				f := l.recv(t)
				l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{}}})
				require.NoError(t, <-read)
				continue
			}
			refused, typed := errors.AsType[*client.RefusedError](<-read)
			require.True(t, typed)
			require.Equal(t, field, refused.Field)
		}
		_, err := c.ReadMessagesAfter(t.Context(), "a", 0, 8)
		require.ErrorContains(t, err, "read_messages.limit")
		l.silent(t)
	})
}

// A message has no more frames than the gateway allows, the acknowledgement included.
func TestMessagesHaveNoMoreFramesThanTheGatewayAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		for range 20 {
			enqueue(t, c, uuid.NewString(), "hello")
		}
		l, _ := g.accept(t, limited())
		for range 20 {
			l.recv(t)
			require.LessOrEqual(t, len(l.pending), 2)
		}
	})
}

// A command that an earlier gateway may have taken is not refused by the limits of another one: its copy may be committed.
func TestALimitSaysNothingAboutAnEarlierCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		ticket := enqueue(t, c, "a", "longer than ten bytes")
		l.recv(t)
		l.cut()
		second, _ := g.accept(t, limited())
		second.silent(t)
		select {
		case <-ticket.Done():
			t.Fatal("the command ended")
		default:
		}
		second.cut()
		third, _ := g.accept(t, connected())
		third.send(commit(third.recv(t), 1))
		_, err := ticket.Wait(t.Context())
		require.NoError(t, err)
	})
}
