package request_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	timeout = 10 * time.Second
	firstID = 2
)

var errRefused = errors.New("refused")

// fixture is a queue with fake dependencies.
type fixture struct {
	*request.Queue

	woken int
	// check is the error of requests that break a limit; nil if none do.
	check func(f *clientv1.ClientFrame) error
}

func newFixture() *fixture {
	f := &fixture{}
	f.Queue = request.NewQueue(request.Config{
		Codec: frame.Proto, Timeout: timeout,
		Backoff: func(failures int) time.Duration { return time.Duration(failures+1) * time.Second },
		Refused: func(*clientv1.ServerFrame, *conversationv1.Error) error { return errRefused },
		Wake:    func() { f.woken++ },
		Check: func(r *clientv1.ClientFrame) error {
			if f.check == nil {
				return nil
			}
			return f.check(r)
		},
	})
	return f
}

// connect begins a connection to a gateway that accepts messages of that size; 0 for any.
func (f *fixture) connect(frameBytes int) {
	f.Connect(request.Limits{FrameBytes: frameBytes}, firstID-1)
}

// sent returns the frames of the next message.
func (f *fixture) sent(t *testing.T) (frames []*clientv1.ClientFrame) {
	t.Helper()
	message := f.Append(nil, protocol.MaxFrames)
	if len(message) == 0 {
		return nil
	}
	require.NoError(t, frame.DecodeClient(frame.Proto, message, func(f *clientv1.ClientFrame) error {
		frames = append(frames, f)
		return nil
	}))
	return frames
}

// sentOne requires that the next message has exactly one frame, and returns the frame's id.
func (f *fixture) sentOne(t *testing.T) (id uint64) {
	t.Helper()
	frames := f.sent(t)
	require.Len(t, frames, 1)
	return frames[0].GetId()
}

// result records how a request ended.
type result struct {
	ended  int
	answer *clientv1.ServerFrame
	err    error
}

func newRequest(after string) (*request.Request, *result) {
	end := &result{}
	return &request.Request{
		Frame: &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListConversations{ListConversations: &clientv1.ListConversations{After: after}}},
		Done: func(answer *clientv1.ServerFrame, err error) {
			end.ended++
			end.answer, end.err = answer, err
		},
	}, end
}

func answer(id uint64) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Conversations{Conversations: &clientv1.Conversations{}}}
}

func refusal(id uint64, code conversationv1.ErrorCode, retryAfter time.Duration) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{
		Code: code, RetryAfterMs: uint32(retryAfter.Milliseconds()),
	}}}
}

// fakePolicy records its calls and returns what the test sets.
type fakePolicy struct {
	calls           []string
	retry, tooLarge bool
	expired         error
}

func (p *fakePolicy) called(what string) { p.calls = append(p.calls, what) }

func (p *fakePolicy) Sent(again bool) {
	p.called(map[bool]string{false: "sent", true: "sent again"}[again])
}

func (p *fakePolicy) Accepted()   { p.called("accepted") }
func (p *fakePolicy) Unanswered() { p.called("unanswered") }

func (p *fakePolicy) Refused(_ *conversationv1.Error, outcome bool) bool {
	p.called(map[bool]string{false: "refused by the gateway", true: "refused"}[outcome])
	return p.retry
}

func (p *fakePolicy) OverLimit() bool {
	p.called("too large")
	return p.tooLarge
}

func (p *fakePolicy) Expired(error) error {
	p.called("expired?")
	return p.expired
}

func TestARequestIsAnsweredOnce(t *testing.T) {
	f := newFixture()
	r, end := newRequest("")
	f.Ask(r)
	require.Empty(t, f.sent(t), "nothing is sent without a connection")
	f.connect(0)
	require.False(t, r.WasSent())
	id := f.sentOne(t)
	require.EqualValues(t, firstID, id)
	require.True(t, r.WasSent())
	require.Empty(t, f.sent(t))
	f.Answer(answer(id + 1))
	require.Zero(t, end.ended, "an answer to nothing")
	f.Answer(answer(id))
	f.Answer(answer(id))
	f.Finish(r, nil, errRefused)
	require.Equal(t, 1, end.ended)
	require.NoError(t, end.err)
	require.Equal(t, id, end.answer.GetId())
	require.Zero(t, f.Pending())
}

func TestARequestThatEndsBeforeItIsSentIsNotSent(t *testing.T) {
	f := newFixture()
	f.connect(0)
	r, end := newRequest("")
	f.Ask(r)
	f.Finish(r, nil, errRefused)
	require.Empty(t, f.sent(t))
	require.Equal(t, 1, end.ended)
	require.ErrorIs(t, end.err, errRefused)
}

func TestAConnectionThatEndsLeavesItsRequestsToTheNextOne(t *testing.T) {
	f := newFixture()
	f.connect(0)
	kept, keptEnd := newRequest("kept")
	policy := &fakePolicy{}
	kept.Policy = policy
	bound, boundEnd := newRequest("bound")
	bound.OneConnection = true
	f.Ask(kept)
	f.Ask(bound)
	require.Len(t, f.sent(t), 2)
	f.Disconnect()
	require.ErrorIs(t, boundEnd.err, request.ErrConnectionLost)
	require.Zero(t, keptEnd.ended)
	require.True(t, f.Due().IsZero())
	require.Empty(t, f.sent(t))

	f.connect(0)
	id := f.sentOne(t)
	require.Equal(t, []string{"sent", "unanswered", "sent again"}, policy.calls)
	require.EqualValues(t, 1, f.Retries)
	f.Answer(answer(id))
	require.Equal(t, 1, keptEnd.ended)
}

// An id of an earlier connection may belong to another request on this connection.
func TestTheEndOfAnOldRequestDoesNotLoseTheAnswerToANewOne(t *testing.T) {
	f := newFixture()
	f.connect(0)
	old, _ := newRequest("old")
	f.Ask(old)
	oldID := f.sentOne(t)
	f.Answer(refusal(oldID, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, time.Hour))
	f.Disconnect()
	f.connect(0)
	recent, recentEnd := newRequest("recent")
	f.Ask(recent)
	require.Equal(t, oldID, f.sentOne(t))
	f.Finish(old, nil, errRefused)
	f.Answer(answer(oldID))
	require.Equal(t, 1, recentEnd.ended)
}

func TestATimeoutSendsARequestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.connect(0)
		r, end := newRequest("")
		policy := &fakePolicy{}
		r.Policy = policy
		f.Ask(r)
		first := f.sentOne(t)
		require.Equal(t, time.Now().Add(timeout), f.Due())
		time.Sleep(timeout - time.Nanosecond)
		require.Empty(t, f.sent(t))
		time.Sleep(time.Nanosecond)
		second := f.sentOne(t)
		require.Equal(t, []string{"sent", "unanswered", "sent again"}, policy.calls)
		require.EqualValues(t, 1, f.Timeouts)
		require.EqualValues(t, 1, f.Retries)
		f.Answer(answer(first))
		require.Zero(t, end.ended, "the answer to the first try came too late")
		f.Answer(answer(second))
		require.Equal(t, 1, end.ended)
	})
}

func TestATemporaryErrorWaitsLongerAndLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.connect(0)
		r, end := newRequest("")
		f.Ask(r)
		for try := range 3 {
			f.Answer(refusal(f.sentOne(t), conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, 0))
			wait := time.Duration(try+1) * time.Second
			time.Sleep(wait - time.Nanosecond)
			require.Empty(t, f.sent(t))
			time.Sleep(time.Nanosecond)
		}
		// The server may ask for a longer wait, which a new connection does not shorten.
		f.Answer(refusal(f.sentOne(t), conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, time.Minute))
		f.Disconnect()
		f.connect(0)
		require.Equal(t, time.Now().Add(time.Minute), f.Due())
		time.Sleep(time.Minute - time.Nanosecond)
		require.Empty(t, f.sent(t))
		time.Sleep(time.Nanosecond)
		f.Answer(answer(f.sentOne(t)))
		require.Equal(t, 1, end.ended)
		require.NoError(t, end.err)
	})
}

func TestAnyOtherErrorIsFinal(t *testing.T) {
	f := newFixture()
	f.connect(0)
	r, end := newRequest("")
	f.Ask(r)
	id := f.sentOne(t)
	f.Answer(refusal(id, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, 0))
	require.ErrorIs(t, end.err, errRefused)
	require.Equal(t, id, end.answer.GetId())
	require.Empty(t, f.sent(t))
}

func TestAPolicyDecidesWhatOnlyItKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.connect(0)
		r, end := newRequest("")
		policy := &fakePolicy{retry: true}
		r.Policy = policy
		f.Ask(r)
		id := f.sentOne(t)
		f.Accepted(id)
		f.Accepted(id + 1)
		f.Answer(refusal(id, conversationv1.ErrorCode_ERROR_CODE_INVALID, 0))
		require.Zero(t, end.ended, "the policy sends it again although the error is not temporary")
		time.Sleep(time.Second)
		id = f.sentOne(t)
		policy.retry = false
		f.Answer(&clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{
			Error: &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED},
		}}})
		require.Zero(t, end.ended, "a temporary error is retried whatever the policy says")
		time.Sleep(2 * time.Second)
		policy.expired = errors.New("for too long")
		f.Answer(refusal(f.sentOne(t), conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, 0))
		require.ErrorIs(t, end.err, policy.expired)
		require.Equal(t, []string{
			"sent", "accepted", "refused by the gateway", "expired?", "sent again", "refused", "expired?",
			"sent again", "refused by the gateway", "expired?",
		}, policy.calls)
	})
}

func TestARequestThatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.connect(50)
		large, largeEnd := newRequest(strings.Repeat("x", 100))
		small, smallEnd := newRequest("")
		f.Ask(large)
		f.Ask(small)
		f.Answer(answer(f.sentOne(t)))
		require.ErrorIs(t, largeEnd.err, request.ErrTooLarge)
		require.False(t, large.WasSent())
		require.NoError(t, smallEnd.err)

		// A request that this gateway does not accept, but another gateway may accept, is retried later.
		again, againEnd := newRequest(strings.Repeat("x", 100))
		policy := &fakePolicy{tooLarge: true}
		again.Policy = policy
		f.Ask(again)
		require.Empty(t, f.sent(t))
		require.Zero(t, againEnd.ended)
		f.Disconnect()
		f.connect(500)
		time.Sleep(time.Second)
		f.Answer(answer(f.sentOne(t)))
		require.NoError(t, againEnd.err)
		require.Equal(t, []string{"too large", "expired?", "sent again"}, policy.calls)
	})
}

func TestAMessageHasNoMoreThanTheGatewayTakes(t *testing.T) {
	f := newFixture()
	f.connect(100)
	for range 3 {
		r, _ := newRequest(strings.Repeat("x", 40))
		f.Ask(r)
	}
	require.Len(t, f.sent(t), 2, "three do not fit into 100 bytes")
	require.Len(t, f.sent(t), 1)
	f.connect(0)
	require.NotEmpty(t, f.Append(nil, 2))
	require.Len(t, f.sent(t), 1, "two went in a message of at most two")
}

func TestTheLargestFrameIsSent(t *testing.T) {
	// send sends two equal requests to a gateway that accepts frames of at most maxFrame bytes.
	send := func(maxFrame int) (message []byte, first *result) {
		f := newFixture()
		f.connect(maxFrame)
		one, first := newRequest("same")
		two, _ := newRequest("same")
		f.Ask(one)
		f.Ask(two)
		return f.Append(nil, protocol.MaxFrames), first
	}
	both, _ := send(0)
	message, _ := send(len(both))
	require.Equal(t, both, message)
	message, _ = send(len(both) - 1)
	require.Len(t, message, len(both)/2)
	message, end := send(len(both) / 2)
	require.Len(t, message, len(both)/2)
	require.Zero(t, end.ended)
	message, end = send(len(both)/2 - 1)
	require.Empty(t, message)
	require.ErrorIs(t, end.err, request.ErrTooLarge)
}

func TestWithoutAConnectionNothingIsDue(t *testing.T) {
	f := newFixture()
	r, _ := newRequest("")
	f.AskAfter(r, time.Second)
	require.True(t, f.Due().IsZero())
	require.Zero(t, f.woken)
}

func TestARequestMayWaitFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.connect(0)
		woken := f.woken
		late, _ := newRequest("late")
		soon, _ := newRequest("soon")
		soon.Prepare = func() { soon.Frame.GetListConversations().After = "prepared" }
		f.AskAfter(late, time.Minute)
		f.AskAfter(soon, time.Second)
		require.Equal(t, woken+2, f.woken, "the writer learns of an earlier time")
		require.Equal(t, time.Now().Add(time.Second), f.Due())
		time.Sleep(time.Second)
		frames := f.sent(t)
		require.Len(t, frames, 1)
		require.Equal(t, "prepared", frames[0].GetListConversations().GetAfter())
	})
}

func TestFailAllEndsEverything(t *testing.T) {
	f := newFixture()
	f.connect(0)
	sent, sentEnd := newRequest("")
	f.Ask(sent)
	f.sentOne(t)
	unsent, unsentEnd := newRequest("")
	f.Ask(unsent)
	waits, waitsEnd := newRequest("")
	f.AskAfter(waits, time.Hour)
	f.FailAll(errRefused)
	for _, end := range []*result{sentEnd, unsentEnd, waitsEnd} {
		require.Equal(t, 1, end.ended)
		require.ErrorIs(t, end.err, errRefused)
	}
	require.Zero(t, f.Pending())
	require.Empty(t, f.sent(t))
}

// TestWaitsAfterRefusals: while the server is unavailable, the waits stay short, because longer waits would outlast the
// outage. After rate limits they keep growing.
func TestWaitsAfterRefusals(t *testing.T) {
	const tries = 30 // the fixture's backoff grows to 30 s
	const unavailable, limited = conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED
	for name, c := range map[string]struct {
		code       conversationv1.ErrorCode
		retryAfter time.Duration
		wait       time.Duration
	}{
		"unavailable":                   {unavailable, 0, 5 * time.Second},
		"unavailable for a second":      {unavailable, time.Second, 2 * time.Second},
		"an internal error":             {conversationv1.ErrorCode_ERROR_CODE_INTERNAL, 0, 5 * time.Second},
		"unavailable for a whole month": {unavailable, 30 * 24 * time.Hour, time.Minute + tries*time.Second},
		"too many requests":             {limited, time.Second, tries * time.Second},
		"too many requests for a while": {limited, 50 * time.Second, 50 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture()
				f.connect(0)
				r, end := newRequest("")
				f.Ask(r)
				id, wait := f.sentOne(t), time.Duration(0)
				for range tries {
					f.Answer(refusal(id, c.code, c.retryAfter))
					frames := f.sent(t)
					for wait = 0; len(frames) == 0; wait += time.Second {
						time.Sleep(time.Second)
						frames = f.sent(t)
					}
					id = frames[0].GetId()
				}
				require.Equal(t, c.wait, wait)
				require.Zero(t, end.ended)
			})
		})
	}
}
