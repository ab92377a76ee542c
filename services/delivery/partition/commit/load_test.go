package commit

import (
	"cmp"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/store"
)

// Each conversation of a batch is loaded once, whether it exists or not.
func TestConversationsAreLoadedOnce(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create))
	require.Equal(t, [][]string{{string(group)}}, first.store.conversations)
	b := first.again()
	b.commit(messages(t, 2, text(2, "a"), text(3, "b")))
	b.commit(messages(t, 4, text(4, "c")))
	require.Equal(t, [][]string{{string(group)}}, b.store.conversations)
	require.Len(t, b.Cache.State(group).Members, 2)

	absent := conversation.DirectID("ann", "bob")
	for n := range 2 {
		b.commit(messages(t, uint64(5+n), deliverytest.Command(string(absent), "ann", 5+n, deliverytest.Text("x"))))
	}
	require.Equal(t, [][]string{{string(group)}, {string(absent)}}, b.store.conversations)
}

// Impossible conversation ids are refused without a call of the store.
func TestIdsThatCannotExist(t *testing.T) {
	b := setup(t)
	bad := text(2, "x")
	bad.ConversationId = "live.>"
	b.commit(messages(t, 1, bad))
	require.Empty(t, b.store.conversations)
	require.Empty(t, b.store.commands)
	results, _ := b.told()
	require.NotEqual(t, none, codesOf(results)[0])
	require.Empty(t, b.store.appends[0].GetRefusals(), "nothing to remember")
}

// An empty list of conversations causes no call. Conversations can also be loaded without a batch.
func TestLoadConversations(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create))
	b := first.again()
	require.NoError(t, b.LoadConversations(t.Context(), nil))
	require.Empty(t, b.store.conversations)
	require.NoError(t, b.LoadConversations(t.Context(), []string{string(group)}))
	require.EqualValues(t, 1, b.Cache.State(group).Head)
}

// Reads are retried until the store answers. Stopping the work ends the retries, and nothing is appended.
func TestReadsAreRepeated(t *testing.T) {
	for name, fail := range map[string]func(b *bench, err func() error){
		"states":         func(b *bench, err func() error) { b.store.loading = err },
		"first outcomes": func(b *bench, err func() error) { b.store.finding = err },
		"facts": func(b *bench, err func() error) {
			b.store.facts = func(answer *historyv1.GetFactsResponse) (*historyv1.GetFactsResponse, error) { return answer, err() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			first := setup(t)
			first.commit(messages(t, 1, create, text(2, "x")))
			batch := messages(t, 3, intruder(3), deliverytest.Command(string(group), "bob", 4, deliverytest.React(2, "+1", false)))
			b := first.again()
			fail(b, times(3, codes.Unavailable))
			b.commit(batch)
			require.Equal(t, 3, b.host.waits)
			require.Equal(t, 3, b.count("read_retries_total", ""))
			require.Contains(t, b.log.String(), name)

			b = over(t, &shop{History: b.store.History}, first.place())
			b.host.stopAfter = 1
			fail(b, times(100, codes.Unavailable))
			require.ErrorIs(t, b.Commit(t.Context(), batch, tries), store.ErrStopping)
			require.Empty(t, b.store.appends)
			require.Empty(t, b.conn.Take())
		})
	}
}

// Facts that commands refer to are requested once. The batch is then decided with the facts.
func TestFactsAreLoaded(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create, text(2, "x")))
	b := first.again()
	edit := &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 2, Text: "y"}}}
	b.commit(messages(t, 3, deliverytest.Command(string(group), "ann", 3, edit), deliverytest.Command(string(group), "bob", 4, edit)))
	results, _ := b.told()
	require.Equal(t, []conversationv1.ErrorCode{none, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN}, codesOf(results))
	require.Equal(t, []int{1}, b.store.needs)
	b.commit(messages(t, 5, deliverytest.Command(string(group), "ann", 5, edit)))
	require.Equal(t, []int{1}, b.store.needs, "they are in memory")
}

// A long list of facts is requested in several calls.
func TestFactsAreAskedForInChunks(t *testing.T) {
	first := setup(t)
	texts, reactions := []*brokerv1.Command{create}, []*brokerv1.Command{}
	for i := range rpc.MaxItems + 1 {
		texts = append(texts, text(10+i, "x"))
		reactions = append(reactions, deliverytest.Command(string(group), "bob", 5000+i, deliverytest.React(uint64(2+i), "+1", false)))
	}
	first.commit(messages(t, 1, texts...))
	b := first.again()
	b.commit(messages(t, 2000, reactions...))
	require.Equal(t, []int{rpc.MaxItems, 1}, b.store.needs)
	results, _ := b.told()
	require.Len(t, results, len(reactions))
	for _, r := range results {
		require.Nil(t, r.GetOutcome().GetError())
	}
}

// A store that lacks an event below the head raises the alarm. The request is retried until the store has the event.
func TestFactIsMissing(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create, text(2, "x")))
	b := first.again()
	b.store.facts = func(answer *historyv1.GetFactsResponse) (*historyv1.GetFactsResponse, error) {
		if len(b.store.needs) <= 2 {
			answer.Facts = nil
		}
		return answer, nil
	}
	b.commit(messages(t, 3, deliverytest.Command(string(group), "bob", 3, deliverytest.React(2, "+1", false))))
	require.Len(t, b.host.alarms, 2)
	require.ErrorContains(t, b.host.alarms[0], "the store lacks event 2 of conversation "+string(group))
	require.Equal(t, 2, b.host.waits)
	results, _ := b.told()
	require.Equal(t, []uint64{3}, seqsOf(results))
}

// An answer with a fact that was not requested is rejected, and the request is retried.
func TestFactThatWasNotAskedFor(t *testing.T) {
	for _, need := range []uint32{1, 2} {
		first := setup(t)
		first.commit(messages(t, 1, create, text(2, "x")))
		b := first.again()
		b.store.facts = func(answer *historyv1.GetFactsResponse) (*historyv1.GetFactsResponse, error) {
			if len(b.store.needs) == 1 {
				answer.Facts = append(answer.GetFacts(), &historyv1.Fact{Need: need})
			}
			return answer, nil
		}
		b.commit(messages(t, 3, deliverytest.Command(string(group), "bob", 3, deliverytest.React(2, "+1", false))))
		require.Equal(t, 1, b.host.waits)
		require.Empty(t, b.host.alarms)
		require.Equal(t, []int{1, 1}, b.store.needs)
	}
}

// All refusals are loaded, page by page, before any command is decided.
func TestLoadRefusals(t *testing.T) {
	first := setup(t)
	commands := []*brokerv1.Command{create}
	for i := range 2*rpc.MaxItems + 1 {
		commands = append(commands, intruder(10+i))
	}
	first.Refusals.Limit = 10_000
	first.commit(messages(t, 1, commands...))
	b := first.again()
	require.Equal(t, 3, b.store.refusals)
	require.Equal(t, 2*rpc.MaxItems+1, b.Refusals.Size())
	require.Equal(t, 2*rpc.MaxItems+1, b.count("refusals_remembered", ""))
	require.Len(t, b.Refusals.Latest, 2*rpc.MaxItems+1)
	b.commit(messages(t, 9000, intruder(10)))
	require.Empty(t, b.store.appends[0].GetRefusals(), "it is remembered already")
}

// An empty page of refusals is the last page, although the store reports more. Otherwise the same page would be requested
// for ever.
func TestAnEmptyPageOfRefusalsIsTheLast(t *testing.T) {
	b := setup(t)
	b.store.listed = func(answer *historyv1.ListRefusalsResponse) { answer.More = b.store.refusals < 3 }
	require.NoError(t, b.LoadRefusals(t.Context(), 0))
	require.Equal(t, 1, b.store.refusals)
}

// An answer that comes with an error is not used.
func TestAnAnswerBesideAnErrorIsNotUsed(t *testing.T) {
	first := setup(t)
	batch := messages(t, 1, create, text(2, "x"))
	first.commit(batch)
	b := over(t, &shop{History: first.store.History}, first.place())
	b.host.stopAfter = 1
	both := &answersAndFails{shop: b.store}
	b.History = both
	require.ErrorIs(t, b.LoadConversations(t.Context(), []string{string(group)}), store.ErrStopping)
	require.Equal(t, []string{string(group)}, b.Cache.Missing(nil, map[ids.Conversation]struct{}{group: {}}), "nothing is kept")
	b.host.stopAfter = b.host.waits + 1
	require.ErrorIs(t, b.Republish(t.Context(), batch), store.ErrStopping)
	require.Empty(t, b.conn.Take())
}

// answersAndFails is a store whose answers come with an error.
type answersAndFails struct{ *shop }

func (s *answersAndFails) GetConversations(ctx context.Context, in *historyv1.GetConversationsRequest, opts ...grpc.CallOption) (*historyv1.GetConversationsResponse, error) {
	answer, err := s.shop.GetConversations(ctx, in, opts...)
	return answer, cmp.Or(err, status.Error(codes.Unavailable, "no"))
}

func (s *answersAndFails) FindCommands(ctx context.Context, in *historyv1.FindCommandsRequest, opts ...grpc.CallOption) (*historyv1.FindCommandsResponse, error) {
	answer, err := s.shop.FindCommands(ctx, in, opts...)
	return answer, cmp.Or(err, status.Error(codes.Unavailable, "no"))
}

// Refusals that are too old by the watermark's time are discarded.
func TestOldRefusalsAreNotLoaded(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create, intruder(2)))
	b := over(t, &shop{History: first.store.History}, first.place())
	require.NoError(t, b.LoadRefusals(t.Context(), 11*60_000))
	require.Zero(t, b.Refusals.Size())
}

// If one page of refusals cannot be loaded, loading fails: the missing page may contain a refusal that decides a command.
func TestLoadRefusalsFails(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create, intruder(2)))
	b := over(t, &shop{History: first.store.History}, first.place())
	b.store.listing = func(*historyv1.ListRefusalsRequest) error { return errAway }
	err := b.LoadRefusals(t.Context(), 0)
	require.ErrorIs(t, err, errAway)
	require.ErrorContains(t, err, "list the refusals")
	require.Zero(t, b.Refusals.Size())
	require.Equal(t, codes.Unknown, status.Code(errors.Unwrap(err)))
}
