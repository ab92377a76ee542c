package admincli

import (
	"cmp"
	"context"
	"encoding/hex"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

type conversations struct {
	List    listConversations  `cmd:"" help:"List the conversations of a user."`
	Show    showConversation   `cmd:"" help:"Show the state of a conversation."`
	Members listMembers        `cmd:"" help:"List the members of a conversation with their cursors."`
	Verify  verifyConversation `cmd:"" help:"Check that a conversation's log has no hole and that every hash is correct."`
}

type listConversations struct {
	User  string `required:"" help:"User id." placeholder:"USER"`
	Limit uint32 `help:"At most this many." default:"1000" range:"1..100000"`
}

func (*listConversations) Help() string {
	return `UNREAD counts events that the user has not read, NOT RECEIVED those that no device of the user has received.

  runnel admin conversations list --user bob`
}

// Run lists conversations.
func (l *listConversations) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		all := &adminv1.ListConversationsResponse{}
		more, err := turn(ctx, l.Limit, func(ctx context.Context, limit uint32) (int, bool, error) {
			request := &adminv1.ListConversationsRequest{UserId: l.User, Limit: limit}
			if n := len(all.GetConversations()); n > 0 {
				request.After = all.GetConversations()[n-1].GetConversationId()
			}
			answer, err := s.admin.ListConversations(ctx, request)
			all.Conversations = append(all.Conversations, answer.GetConversations()...)
			return len(answer.GetConversations()), answer.GetMore(), err
		})
		if err != nil {
			return err
		}
		all.More = more
		defer s.noteMore(more)
		return s.print(all, func(p *page) {
			if len(all.GetConversations()) == 0 {
				p.linef("no conversations")
				return
			}
			p.row("CONVERSATION", "KIND", "NAME", "MEMBERS", "JOINED AT", "HEAD", "NOT RECEIVED", "UNREAD")
			for _, at := range all.GetConversations() {
				name := at.GetName()
				if at.GetPeer() != "" {
					name = "with " + person(at.GetPeer())
				}
				p.row(at.GetConversationId(), word(at.GetKind(), "KIND_"), name, number(at.GetMembers()), number(at.GetJoinedSeq()), number(at.GetHead()),
					number(lacks(at.GetHead(), at.GetCursor().GetDeliveredSeq(), at.GetJoinedSeq())),
					number(lacks(at.GetHead(), at.GetCursor().GetReadSeq(), at.GetJoinedSeq())))
			}
		})
	})
}

func (s *session) noteMore(more bool) {
	if more {
		s.notef("There are more: set --limit.")
	}
}

type showConversation struct {
	ID string `arg:"" help:"Id of the conversation."`
}

func (*showConversation) Help() string {
	return `OWNER is the worker that owns the conversation's partition and orders its commands.

  runnel admin conversations show g1a2b3c4d5e6f7g8h9i0j1k2l3m`
}

// Run shows a conversation.
func (w *showConversation) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.GetConversation(ctx, &adminv1.GetConversationRequest{ConversationId: w.ID})
		if err != nil {
			return err
		}
		return s.print(answer, func(p *page) {
			state := answer.GetState()
			p.row("conversation", state.GetConversationId())
			p.row("kind", word(state.GetKind(), "KIND_"))
			p.row("name", state.GetName())
			p.row("created by", person(state.GetCreator()))
			p.row("head", number(state.GetHead()))
			p.row("head hash", hex.EncodeToString(state.GetHeadHash()))
			p.row("partition", number(answer.GetPartition()))
			p.row("owner", cmp.Or(answer.GetOwner(), "none: nothing can be committed until a worker takes over the partition"))
			p.row("members", number(answer.GetMembers()))
			p.gap()
			drawMembers(p, state.GetMembers(), state.GetHead())
			if more := int(answer.GetMembers()) - len(state.GetMembers()); more > 0 {
				p.linef("and %d more: see runnel admin conversations members %s", more, state.GetConversationId())
			}
		})
	})
}

type listMembers struct {
	ID    string `arg:"" help:"Id of the conversation."`
	Limit uint32 `help:"At most this many." default:"1000" range:"1..100000"`
}

func (*listMembers) Help() string {
	return `NOT RECEIVED counts events that no device of the member has received.

  runnel admin conversations members g1a2b3c4d5e6f7g8h9i0j1k2l3m`
}

// Run lists members.
func (l *listMembers) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		all := &adminv1.ListMembersResponse{}
		more, err := turn(ctx, l.Limit, func(ctx context.Context, limit uint32) (int, bool, error) {
			request := &adminv1.ListMembersRequest{ConversationId: l.ID, Limit: limit}
			if n := len(all.GetMembers()); n > 0 {
				request.After = all.GetMembers()[n-1].GetCursor().GetUserId()
			}
			answer, err := s.admin.ListMembers(ctx, request)
			all.Members, all.Head = append(all.Members, answer.GetMembers()...), max(all.GetHead(), answer.GetHead())
			return len(answer.GetMembers()), answer.GetMore(), err
		})
		if err != nil {
			return err
		}
		all.More = more
		defer s.noteMore(more)
		return s.print(all, func(p *page) { drawMembers(p, all.GetMembers(), all.GetHead()) })
	})
}

func drawMembers(p *page, members []*historyv1.Member, head uint64) {
	if len(members) == 0 {
		p.linef("no members")
		return
	}
	p.row("MEMBER", "JOINED AT", "RECEIVED", "READ", "NOT RECEIVED", "LAST RECEIVED")
	for _, member := range members {
		at := member.GetCursor()
		p.row(person(at.GetUserId()), number(member.GetJoinedSeq()), number(at.GetDeliveredSeq()), number(at.GetReadSeq()),
			number(lacks(head, at.GetDeliveredSeq(), member.GetJoinedSeq())), p.moment(at.GetDeliveredTimeMs()))
	}
}
