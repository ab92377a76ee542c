package client

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// SendOption adds something to a message.
type SendOption func(*conversationv1.Message)

// ReplyTo makes the message a reply to the message seq of the same conversation.
func ReplyTo(seq uint64) SendOption {
	return func(m *conversationv1.Message) { m.ReplyTo = seq }
}

// WithMetadata adds attributes of the program's choice.
func WithMetadata(metadata map[string]string) SendOption {
	return func(m *conversationv1.Message) { m.Metadata = metadata }
}

// Send sends a message and waits until it is committed; see Submit.
func (c *Client) Send(ctx context.Context, conversationID, text string, options ...SendOption) (*conversationv1.Outcome, error) {
	message := &conversationv1.Message{Text: text}
	for _, option := range options {
		option(message)
	}
	return c.Submit(ctx, conversationID, &conversationv1.Body{Action: &conversationv1.Body_Message{Message: message}})
}

// Edit replaces the content of the user's own message target. An edit does not change which message target replies to, so
// ReplyTo has no effect.
func (c *Client) Edit(ctx context.Context, conversationID string, target uint64, text string, options ...SendOption) (*conversationv1.Outcome, error) {
	content := &conversationv1.Message{Text: text}
	for _, option := range options {
		option(content)
	}
	edit := &conversationv1.Edit{Target: target, Text: text, Metadata: content.GetMetadata()}
	return c.Submit(ctx, conversationID, &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: edit}})
}

// Delete deletes the message target for everyone: its content is erased from the log. The sender of the message and the
// owner of a group may delete it.
func (c *Client) Delete(ctx context.Context, conversationID string, target uint64) (*conversationv1.Outcome, error) {
	return c.Submit(ctx, conversationID, &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: target}}})
}

// React adds a reaction to the message target, usually one emoji.
func (c *Client) React(ctx context.Context, conversationID string, target uint64, emoji string) (*conversationv1.Outcome, error) {
	return c.react(ctx, conversationID, &conversationv1.React{Target: target, Emoji: emoji})
}

// Unreact removes a reaction of the user to the message target.
func (c *Client) Unreact(ctx context.Context, conversationID string, target uint64, emoji string) (*conversationv1.Outcome, error) {
	return c.react(ctx, conversationID, &conversationv1.React{Target: target, Emoji: emoji, Remove: true})
}

func (c *Client) react(ctx context.Context, conversationID string, react *conversationv1.React) (*conversationv1.Outcome, error) {
	return c.Submit(ctx, conversationID, &conversationv1.Body{Action: &conversationv1.Body_React{React: react}})
}

// CreateGroup creates a group of the user and the members, and returns its id.
func (c *Client) CreateGroup(ctx context.Context, name string, members ...string) (conversationID string, err error) {
	outcome, err := c.create(ctx, &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP, Name: name, Members: members})
	return outcome.GetConversationId(), err
}

// OpenDirect returns the id of the direct conversation with a user. It creates the conversation if there is none yet.
func (c *Client) OpenDirect(ctx context.Context, user string) (conversationID string, err error) {
	outcome, err := c.create(ctx, &conversationv1.Create{Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{user}})
	var refusal *RefusedError
	if errors.As(err, &refusal) && refusal.Code == conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS {
		return string(conversation.DirectID(ids.User(c.UserID()), ids.User(user))), nil
	}
	return outcome.GetConversationId(), err
}

func (c *Client) create(ctx context.Context, create *conversationv1.Create) (*conversationv1.Outcome, error) {
	return c.Submit(ctx, "", &conversationv1.Body{Action: &conversationv1.Body_Create{Create: create}})
}

// AddMembers adds users to a group.
func (c *Client) AddMembers(ctx context.Context, conversationID string, members ...string) (*conversationv1.Outcome, error) {
	add := &conversationv1.AddMembers{Members: members}
	return c.Submit(ctx, conversationID, &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: add}})
}

// RemoveMember removes another user from a group.
func (c *Client) RemoveMember(ctx context.Context, conversationID, member string) (*conversationv1.Outcome, error) {
	remove := &conversationv1.RemoveMember{Member: member}
	return c.Submit(ctx, conversationID, &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: remove}})
}

// Leave removes the user from a group.
func (c *Client) Leave(ctx context.Context, conversationID string) (*conversationv1.Outcome, error) {
	return c.Submit(ctx, conversationID, &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}})
}

// Rename renames a group.
func (c *Client) Rename(ctx context.Context, conversationID, name string) (*conversationv1.Outcome, error) {
	rename := &conversationv1.Rename{Name: name}
	return c.Submit(ctx, conversationID, &conversationv1.Body{Action: &conversationv1.Body_Rename{Rename: rename}})
}

// ReadAfter reads a page of at most limit events after a seq, oldest first; 0 starts with the first event. If limit is 0,
// the gateway chooses it. Unless Config.SkipVerify is set, a page whose events contradict each other returns an error
// that wraps a *chain.Broken.
//
// Like all read-only calls, ReadAfter waits for a connection and retries temporary refusals until ctx ends.
func (c *Client) ReadAfter(ctx context.Context, conversationID string, after uint64, limit int) (*Page, error) {
	return c.read(ctx, &clientv1.Read{ConversationId: conversationID, After: after, Limit: uint32(max(limit, 0))})
}

// ReadBefore reads a page of at most limit events before a seq, newest first; 0 starts with the newest event. In all
// other respects it is like ReadAfter.
func (c *Client) ReadBefore(ctx context.Context, conversationID string, before uint64, limit int) (*Page, error) {
	return c.read(ctx, &clientv1.Read{ConversationId: conversationID, Before: before, Limit: uint32(max(limit, 0)), Backward: true})
}

func (c *Client) read(ctx context.Context, read *clientv1.Read) (*Page, error) {
	answer, err := c.session.call(ctx, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: read}}, nil)
	if err != nil {
		return nil, fmt.Errorf("client: read: %w", err)
	}
	page := answer.GetPage()
	if page == nil {
		return nil, fmt.Errorf("client: read: %w", errAnswer)
	}
	checked, err := checkPage(stream.NewChecker(c.cfg.Codec, c.cfg.SkipVerify), read, page)
	if err != nil {
		return nil, fmt.Errorf("client: read: %w", err)
	}
	return checked, nil
}

// ReadMessagesAfter reads a page of at most limit messages after a seq, oldest first. The messages have their present
// form, with edits, reactions and the number of replies. 0 starts with the first message; if limit is 0, the gateway
// chooses it. Events above the page's head may change its content. Unlike events, messages in their present form cannot
// be verified.
func (c *Client) ReadMessagesAfter(ctx context.Context, conversationID string, after uint64, limit int) (*clientv1.Messages, error) {
	return c.readMessages(ctx, &clientv1.ReadMessages{ConversationId: conversationID, After: after, Limit: uint32(max(limit, 0))})
}

// ReadMessagesBefore reads a page of at most limit messages before a seq, newest first; 0 starts with the newest message.
// In all other respects it is like ReadMessagesAfter.
func (c *Client) ReadMessagesBefore(ctx context.Context, conversationID string, before uint64, limit int) (*clientv1.Messages, error) {
	return c.readMessages(ctx, &clientv1.ReadMessages{ConversationId: conversationID, Before: before, Limit: uint32(max(limit, 0)), Backward: true})
}

func (c *Client) readMessages(ctx context.Context, read *clientv1.ReadMessages) (*clientv1.Messages, error) {
	answer, err := c.session.call(ctx, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ReadMessages{ReadMessages: read}}, nil)
	if err != nil {
		return nil, fmt.Errorf("client: read messages: %w", err)
	}
	if answer.GetMessages() == nil {
		return nil, fmt.Errorf("client: read messages: %w", errAnswer)
	}
	return answer.GetMessages(), nil
}

// Conversations iterates over the user's conversations by rising id. It ends with the first error.
func (c *Client) Conversations(ctx context.Context) iter.Seq2[*clientv1.Conversation, error] {
	return func(yield func(*clientv1.Conversation, error) bool) {
		after := ""
		for {
			list := &clientv1.ListConversations{After: after}
			answer, err := c.session.call(ctx, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListConversations{ListConversations: list}}, func() {
				list.Limit = c.session.limits.GetMaxPage()
			})
			if err != nil {
				yield(nil, fmt.Errorf("client: list conversations: %w", err))
				return
			}
			page := answer.GetConversations().GetConversations()
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
				after = info.GetConversationId()
			}
			if !answer.GetConversations().GetMore() || len(page) == 0 {
				return
			}
		}
	}
}

// Members iterates over the members of a conversation with their cursors, by rising user id. It ends with the first error.
func (c *Client) Members(ctx context.Context, conversationID string) iter.Seq2[*conversationv1.Cursor, error] {
	return func(yield func(*conversationv1.Cursor, error) bool) {
		after := ""
		for {
			list := &clientv1.ListMembers{ConversationId: conversationID, After: after}
			answer, err := c.session.call(ctx, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListMembers{ListMembers: list}}, func() {
				list.Limit = c.session.limits.GetMaxPage()
			})
			if err != nil {
				yield(nil, fmt.Errorf("client: list members: %w", err))
				return
			}
			page := answer.GetMembers().GetMembers()
			for _, member := range page {
				if !yield(member, nil) {
					return
				}
				after = member.GetUserId()
			}
			if !answer.GetMembers().GetMore() || len(page) == 0 {
				return
			}
		}
	}
}

// call sends a request and waits for the answer. If prepare is not nil, it is called under the lock before each send, and
// updates the frame.
func (s *session) call(ctx context.Context, f *clientv1.ClientFrame, prepare func()) (*clientv1.ServerFrame, error) {
	var answer *clientv1.ServerFrame
	var failure error
	done := make(chan struct{})
	r := &request.Request{Frame: f, Prepare: prepare, Done: func(f *clientv1.ServerFrame, err error) {
		answer, failure = f, err
		close(done)
	}}
	s.mu.Lock()
	if s.state == Closed {
		defer s.mu.Unlock()
		return nil, s.reasonLocked()
	}
	s.requests.Ask(r)
	s.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		s.mu.Lock()
		// This has no effect if the answer has arrived meanwhile.
		s.requests.Finish(r, nil, ctx.Err())
		s.mu.Unlock()
		<-done
	}
	return answer, failure
}
