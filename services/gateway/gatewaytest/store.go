// Package gatewaytest is shared by the tests of the gateway's packages: a history service that holds one conversation.
package gatewaytest

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Store is a history service that holds one conversation. Fields may be changed with Set.
type Store struct {
	historyv1.HistoryServiceClient

	mu          sync.Mutex
	Log         []*conversationv1.Event
	Joined      ids.Seq // the seq at which every user's membership begins; 0 means 1
	Earlier     ids.Seq // the seq at which every user's earlier membership ended; that membership began at seq 1; 0 for no earlier membership
	Left        ids.Seq // the seq at which every user's membership ended; 0 while it lasts
	ByLog       bool    // memberships follow from the events of the log; Joined, Earlier and Left are not used
	Missing     ids.Seq // the seq of an event that the store has lost
	Down        bool
	Level       uint32
	Partitions  uint32
	Reads       int
	Lists       int
	Compares    int
	Finds       int
	Viewed      *historyv1.ReadMessagesRequest
	Messages    *historyv1.ReadMessagesResponse
	Revocations []*historyv1.Revocation
	Members     []*historyv1.Member
	Counts      []*historyv1.MembershipCount
}

// Set calls change with the store's lock held.
func (f *Store) Set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Put replaces the log.
func (f *Store) Put(log []*conversationv1.Event) { f.Set(func() { f.Log = log }) }

// GetRevocations answers as the history service does.
func (f *Store) GetRevocations(_ context.Context, request *historyv1.GetRevocationsRequest, _ ...grpc.CallOption) (*historyv1.GetRevocationsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Down {
		return nil, ErrDown
	}
	answer := &historyv1.GetRevocationsResponse{}
	for _, r := range f.Revocations {
		if (request.GetUserId() == "" || r.GetUserId() == request.GetUserId()) && r.GetBeforeMs() > request.GetSinceMs() {
			answer.Revocations = append(answer.Revocations, r)
		}
	}
	return answer, nil
}

// ListMembers answers as the history service does.
func (f *Store) ListMembers(context.Context, *historyv1.ListMembersRequest, ...grpc.CallOption) (*historyv1.ListMembersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Down {
		return nil, ErrDown
	}
	return &historyv1.ListMembersResponse{Members: f.Members}, nil
}

// ErrDown is the error that a Store returns while it is down.
var ErrDown = status.Error(codes.Unavailable, "away")

// Heads answers as the history service does.
func (f *Store) Heads(_ context.Context, request *historyv1.HeadsRequest, _ ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Down {
		return nil, ErrDown
	}
	answer := &historyv1.HeadsResponse{}
	if len(f.Log) > 0 && slices.Contains(request.GetConversationIds(), f.Log[0].GetConversationId()) {
		last := f.Log[len(f.Log)-1]
		answer.Heads = append(answer.Heads, &historyv1.Head{ConversationId: last.GetConversationId(), Head: last.GetSeq(), HeadHash: last.GetHash()})
	}
	return answer, nil
}

// ListConversations answers as the history service does.
func (f *Store) ListConversations(_ context.Context, request *historyv1.ListConversationsRequest, _ ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Lists++
	if f.Down {
		return nil, ErrDown
	}
	answer := &historyv1.ListConversationsResponse{}
	for _, r := range f.Revocations {
		if r.GetUserId() == request.GetUserId() {
			answer.RevokedBeforeMs = r.GetBeforeMs()
		}
	}
	if len(f.Log) == 0 {
		return answer, nil
	}
	stretches := f.stretchesLocked(request.GetUserId())
	for _, m := range stretches {
		if since := request.GetEndedSinceMs(); since > 0 && m.GetLast() != 0 && f.Log[m.GetFirst()-1].GetTimeMs() >= since {
			answer.Ended = append(answer.Ended, &historyv1.Membership{
				ConversationId: f.Log[0].GetConversationId(), JoinedSeq: m.GetFirst(), LeftSeq: m.GetLast(),
			})
		}
	}
	if n := len(stretches); n > 0 && stretches[n-1].GetLast() == 0 && f.Log[0].GetConversationId() > request.GetAfter() &&
		(len(request.GetConversationIds()) == 0 || slices.Contains(request.GetConversationIds(), f.Log[0].GetConversationId())) {
		answer.Conversations = append(answer.Conversations, &historyv1.Summary{
			ConversationId: f.Log[0].GetConversationId(), Head: uint64(len(f.Log)), JoinedSeq: stretches[n-1].GetFirst(),
		})
	}
	return answer, nil
}

// CompareMemberships answers as the history service does. The digest depends only on the number of memberships.
func (f *Store) CompareMemberships(
	_ context.Context, request *historyv1.CompareMembershipsRequest, _ ...grpc.CallOption,
) (*historyv1.CompareMembershipsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Compares++
	if f.Down {
		return nil, ErrDown
	}
	answer := &historyv1.CompareMembershipsResponse{}
	for _, user := range request.GetUsers() {
		changed := &historyv1.ChangedMemberships{UserId: user.GetUserId(), Digest: 1}
		for _, m := range f.stretchesLocked(user.GetUserId()) {
			changed.Digest += 1000 + m.GetLast()
			if at := cmp.Or(m.GetLast(), m.GetFirst()); at <= uint64(len(f.Log)) && f.Log[at-1].GetTimeMs() >= request.GetSinceMs() {
				changed.Memberships = append(changed.Memberships, &historyv1.Membership{
					ConversationId: f.Log[0].GetConversationId(), JoinedSeq: m.GetFirst(), LeftSeq: m.GetLast(),
				})
			}
		}
		if changed.GetDigest() != user.GetDigest() {
			answer.Users = append(answer.Users, changed)
		}
	}
	return answer, nil
}

// FindMemberships answers as the history service does.
func (f *Store) FindMemberships(_ context.Context, request *historyv1.FindMembershipsRequest, _ ...grpc.CallOption) (*historyv1.FindMembershipsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Finds++
	if f.Down {
		return nil, ErrDown
	}
	answer := &historyv1.FindMembershipsResponse{}
	if len(f.Log) == 0 || !slices.Contains(request.GetConversationIds(), f.Log[0].GetConversationId()) {
		return answer, nil
	}
	if stretches := f.stretchesLocked(request.GetUserId()); len(stretches) > 0 {
		last := stretches[len(stretches)-1]
		answer.Memberships = append(answer.Memberships, &historyv1.NewestMembership{
			ConversationId: f.Log[0].GetConversationId(), JoinedSeq: last.GetFirst(), LeftSeq: last.GetLast(),
		})
	}
	return answer, nil
}

// CountMemberships answers with the counts that the test has set, whoever is asked about.
func (f *Store) CountMemberships(context.Context, *historyv1.CountMembershipsRequest, ...grpc.CallOption) (*historyv1.CountMembershipsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &historyv1.CountMembershipsResponse{Counts: f.Counts}, nil
}

// Read returns rising pages as the history service does.
func (f *Store) Read(_ context.Context, request *historyv1.ReadRequest, _ ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Reads++
	if f.Down {
		return nil, ErrDown
	}
	if request.GetViewer() == "" {
		return nil, status.Error(codes.PermissionDenied, "a gateway must name a viewer")
	}
	if len(f.Log) == 0 {
		return nil, status.Error(codes.NotFound, "no such conversation")
	}
	stretches := []*conversationv1.Range{{First: 1}}
	if request.GetViewer() != "" {
		stretches = f.stretchesLocked(request.GetViewer())
	}
	if len(stretches) == 0 {
		return nil, status.Error(codes.NotFound, "never a member")
	}
	page, next := &historyv1.ReadResponse{Member: stretches[len(stretches)-1].GetLast() == 0}, request.GetAfter()+1
	for _, visible := range stretches {
		page.Head = visible.GetLast()
		if page.GetHead() == 0 {
			page.Head = uint64(len(f.Log))
		}
	}
	for _, visible := range stretches {
		last := cmp.Or(visible.GetLast(), page.GetHead())
		if last < next || page.GetMore() {
			continue
		}
		if first := visible.GetFirst(); first > next {
			page.Hidden = append(page.Hidden, &conversationv1.Range{First: next, Last: first - 1})
			next = first
		}
		for ; next <= last; next++ {
			switch {
			case ids.Seq(next) == f.Missing:
			case len(page.GetEvents()) == int(request.GetLimit()):
				page.More = true
				return page, nil
			default:
				page.Events = append(page.Events, f.Log[next-1])
			}
		}
	}
	return page, nil
}

// stretchesLocked returns the memberships of a user. The last seq of a present membership is 0.
func (f *Store) stretchesLocked(userID string) (all []*conversationv1.Range) {
	switch {
	case !f.ByLog && f.Earlier != 0:
		return []*conversationv1.Range{{First: 1, Last: uint64(f.Earlier)}, {First: uint64(f.Joined), Last: uint64(f.Left)}}
	case !f.ByLog:
		return []*conversationv1.Range{{First: uint64(max(f.Joined, 1)), Last: uint64(f.Left)}}
	}
	for _, event := range f.Log {
		joined, left := conversation.Memberships(event)
		if slices.Contains(joined, userID) {
			all = append(all, &conversationv1.Range{First: event.GetSeq()})
		}
		if string(left) == userID {
			all[len(all)-1].Last = event.GetSeq()
		}
	}
	return all
}

// GetInstallation answers as the history service does.
func (f *Store) GetInstallation(context.Context, *historyv1.GetInstallationRequest, ...grpc.CallOption) (*historyv1.GetInstallationResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Down {
		return nil, ErrDown
	}
	return &historyv1.GetInstallationResponse{Partitions: f.Partitions, Level: f.Level}, nil
}

// ReadMessages answers as the history service does.
func (f *Store) ReadMessages(_ context.Context, request *historyv1.ReadMessagesRequest, _ ...grpc.CallOption) (*historyv1.ReadMessagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Viewed = request
	return f.Messages, nil
}

// GroupID is the conversation of a log that Branch makes.
const GroupID = "g0123456789abcdefghijklmnop"

// Branch extends a log up to seq n with messages that contain text.
func Branch(log []*conversationv1.Event, n int, text string) []*conversationv1.Event {
	log = slices.Clone(log)
	for len(log) < n {
		body := &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}}
		if len(log) == 0 {
			body = &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
				Kind: conversationv1.Kind_KIND_GROUP, Members: []string{"ann", "bob"},
			}}}
		}
		log = append(log, Next(log, "cem", body))
	}
	return log
}

// Next makes the event that would follow the last event of log.
func Next(log []*conversationv1.Event, sender ids.User, body *conversationv1.Body) *conversationv1.Event {
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err) //nolint:forbidigo // the bodies of tests can be encoded
	}
	event := &conversationv1.Event{
		ConversationId: GroupID, Seq: uint64(len(log) + 1), TimeMs: time.Now().UnixMilli(), Sender: string(sender),
		CommandId: "0192f3c0-0000-7000-8000-000000000001", Kind: conversation.KindOf(body), Body: encoded,
		Salt: make([]byte, chain.SaltSize), PrevHash: chain.Zero,
	}
	if len(log) > 0 {
		event.PrevHash = log[len(log)-1].GetHash()
	}
	chain.Seal(event)
	return event
}

// Position returns the position of a client that has received an event.
func Position(event *conversationv1.Event) *clientv1.Position {
	return &clientv1.Position{ConversationId: event.GetConversationId(), Seq: event.GetSeq(), Hash: event.GetHash()[:chain.PrefixSize]}
}
