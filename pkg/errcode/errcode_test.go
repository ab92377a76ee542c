package errcode_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

func TestCatalogueCoversTheProtocol(t *testing.T) {
	names := map[string]bool{}
	for number := range conversationv1.ErrorCode_name {
		if code := conversationv1.ErrorCode(number); code != conversationv1.ErrorCode_ERROR_CODE_UNSPECIFIED {
			require.NotEqual(t, "unknown", errcode.Name(code), code.String())
			require.False(t, names[errcode.Name(code)], "a name stands for one code")
			names[errcode.Name(code)] = true
		}
	}
	require.Len(t, errcode.Codes, len(names))
	require.True(t, slices.IsSortedFunc(errcode.Codes, func(a, b errcode.Code) int { return int(a.Code - b.Code) }))
	for _, code := range errcode.Codes {
		require.NotEmpty(t, code.Meaning, code.Name)
		require.Regexp(t, `^[A-Z].*\.$`, code.Why, code.Name)
		require.Equal(t, !errcode.Temporary(code.Code), code.Final(), code.Name)
	}
	require.True(t, errcode.Temporary(conversationv1.ErrorCode(999)), "what a newer server says is worth another try")
	require.True(t, errcode.Temporary(conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE))
	require.False(t, errcode.Temporary(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN))
}

func TestRangeDecidesAboutReconnecting(t *testing.T) {
	for code, reconnect := range map[errcode.CloseCode]bool{
		1000: true, 1006: true, errcode.CloseSlow: true, 4499: true, 4500: false, errcode.CloseUnauthenticated: false, 4999: false,
	} {
		require.Equal(t, reconnect, code.Reconnect(), "%d", code)
	}
	require.Equal(t, "slow", errcode.CloseSlow.String())
	require.Equal(t, "other", errcode.CloseCode(4321).String())
}

func TestCloseCodesAreSortedAndNamed(t *testing.T) {
	names := map[string]bool{}
	last := errcode.CloseCode(3999)
	for _, code := range errcode.CloseCodes {
		require.Greater(t, code.Code, last)
		require.NotEmpty(t, code.Meaning, code.Name)
		require.Regexp(t, `^[A-Z].*\.$`, code.Why, code.Name)
		require.Equal(t, code.Final, !code.Code.Reconnect(), "%s: the range decides", code.Name)
		require.False(t, names[code.Name], "a name stands for one code")
		require.Equal(t, code.Name, code.Code.String())
		names[code.Name], last = true, code.Code
	}
}
