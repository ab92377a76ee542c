package client

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestWhatAnErrorSaysAboutEarlierCopies(t *testing.T) {
	const (
		invalid     = conversationv1.ErrorCode_ERROR_CODE_INVALID
		limited     = conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED
		internal    = conversationv1.ErrorCode_ERROR_CODE_INTERNAL
		unavailable = conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE
	)
	for name, test := range map[string]struct {
		code                   conversationv1.ErrorCode
		outcome, before, after bool
		number                 uint32
		retry                  bool
	}{
		"a refusal is final for all copies of the attempt":           {code: invalid, outcome: true, before: true, number: 1},
		"a temporary refusal as well":                                {code: limited, outcome: true, before: true, number: 1},
		"unavailable says nothing":                                   {code: unavailable, outcome: true, after: true},
		"unavailable leaves what was unconfirmed":                    {code: unavailable, before: true, after: true},
		"a gateway that is busy did not take this copy":              {code: limited},
		"a gateway that is busy says nothing about earlier copies":   {code: limited, before: true, after: true},
		"a gateway that failed may have sent it":                     {code: internal, after: true},
		"a gateway that refuses a first copy decides":                {code: invalid},
		"a gateway that refuses a later copy does not decide for it": {code: invalid, before: true, after: true, retry: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := attempt{unconfirmed: test.before}
			require.Equal(t, test.retry, a.Refused(&conversationv1.Error{Code: test.code}, test.outcome))
			require.Equal(t, test.number, a.number)
			require.Equal(t, test.after, a.unconfirmed)
			require.Equal(t, test.retry, !a.rejectedSince.IsZero())
		})
	}
}

func TestACommandIsRejectedForALimitedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("too large")
		var a attempt
		require.False(t, a.OverLimit(), "no copy was sent")
		a.Unanswered()
		require.True(t, a.OverLimit())
		time.Sleep(rejectedFor - time.Nanosecond)
		require.True(t, a.OverLimit())
		require.NoError(t, a.Expired(cause))
		time.Sleep(time.Nanosecond)
		err := a.Expired(cause)
		require.ErrorIs(t, err, ErrOutcomeUnknown)
		unconfirmed, ok := errors.AsType[*UnconfirmedError](err)
		require.True(t, ok)
		require.Equal(t, cause, unconfirmed.Cause)
		// A refusal by the owner clears the unconfirmed state.
		a.Refused(&conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED}, true)
		require.NoError(t, a.Expired(cause))
	})
}
