package client

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/link"
	"github.com/runnelhq/runnel/pkg/errcode"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestWhetherTheClientMustStayAway(t *testing.T) {
	lost := errors.New("lost")
	refusal := func(code conversationv1.ErrorCode) *conversationv1.Error { return &conversationv1.Error{Code: code} }
	for name, test := range map[string]struct {
		end link.End
		// closed is the code of the expected *ClosedError; 0 if the client reconnects.
		closed errcode.CloseCode
	}{
		"lost":                            {end: link.End{Err: lost}},
		"closed with a code to reconnect": {end: link.End{Err: lost, Close: &link.Close{Code: errcode.CloseSlow}}},
		"closed with a code to stay away": {end: link.End{Err: lost, Close: &link.Close{Code: errcode.CloseStayAway}}, closed: errcode.CloseStayAway},
		"refused for now":                 {end: link.End{Err: lost, Refusal: refusal(conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE)}},
		"refused for good, but the close code was lost": {end: link.End{Err: lost, Refusal: refusal(conversationv1.ErrorCode_ERROR_CODE_INVALID)}},
		"too many connections, without the close code":  {end: link.End{Err: lost, Refusal: refusal(conversationv1.ErrorCode_ERROR_CODE_LIMIT)}},
		"an expired token, without the close code":      {end: link.End{Err: lost, Refusal: refusal(conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED)}},
		"a refusal for good, but a code to reconnect": {
			end: link.End{Err: lost, Refusal: refusal(conversationv1.ErrorCode_ERROR_CODE_INVALID), Close: &link.Close{Code: errcode.CloseSlow}},
		},
		"a refusal for now, but a code to stay away": {
			end:    link.End{Err: lost, Refusal: refusal(conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE), Close: &link.Close{Code: errcode.CloseFlood}},
			closed: errcode.CloseFlood,
		},
	} {
		err := endError(test.end)
		require.Error(t, err, name)
		closed, forGood := errors.AsType[*ClosedError](err)
		require.Equal(t, test.closed != 0, forGood, name)
		if forGood {
			require.Equal(t, test.closed, closed.Code, name)
			require.Equal(t, test.end.Refusal != nil, closed.Refusal != nil, name)
		}
	}
}
