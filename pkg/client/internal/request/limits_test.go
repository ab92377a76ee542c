package request_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

func submit() *request.Request {
	return &request.Request{
		Frame: &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{}}},
		Done:  func(*clientv1.ServerFrame, error) {},
	}
}

// No more requests are open than the gateway allows; submits do not count, and do not wait.
func TestOpenRequestsStayWithinTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.Connect(request.Limits{OpenRequests: 2}, 1)
		for range 2 {
			r, _ := newRequest("")
			f.Ask(r)
		}
		third, thirdEnd := newRequest("third")
		f.Ask(third)
		f.Ask(submit())
		sent := f.sent(t)
		require.Len(t, sent, 3)
		require.NotNil(t, sent[2].GetSubmit())
		require.Empty(t, f.sent(t))

		woken := f.woken
		f.Answer(answer(sent[0].GetId()))
		require.Greater(t, f.woken, woken, "the writer learns that there is room")
		f.Answer(answer(f.sentOne(t)))
		require.Equal(t, 1, thirdEnd.ended)

		// A request without an answer in time gives up its place to itself.
		time.Sleep(timeout)
		require.Len(t, f.sent(t), 2, "the submit and the second request")

		// A new connection starts anew.
		f.Disconnect()
		f.Connect(request.Limits{OpenRequests: 2}, 1)
		for range 2 {
			r, _ := newRequest("")
			f.Ask(r)
		}
		require.Len(t, f.sent(t), 3, "two requests and the submit")
		require.Empty(t, f.sent(t))
	})
}

// A request that breaks a limit of the gateway is not sent. One whose earlier copy another gateway may have taken waits for a
// gateway that takes it.
func TestARequestAboveALimitIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.connect(0)
		broken := errors.New("above a limit")
		f.check = func(*clientv1.ClientFrame) error { return broken }
		r, end := newRequest("")
		f.Ask(r)
		require.Empty(t, f.sent(t))
		require.ErrorIs(t, end.err, broken)
		require.False(t, r.WasSent())

		again, againEnd := newRequest("")
		again.Policy = &fakePolicy{tooLarge: true}
		f.Ask(again)
		require.Empty(t, f.sent(t))
		require.Zero(t, againEnd.ended)
		f.check = nil
		time.Sleep(time.Second)
		f.Answer(answer(f.sentOne(t)))
		require.NoError(t, againEnd.err)
	})
}
