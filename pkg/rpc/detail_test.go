package rpc_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

func TestDetail(t *testing.T) {
	st, err := status.New(codes.DataLoss, "missing").WithDetails(protoadapt.MessageV1Of(&conversationv1.Range{First: 3, Last: 4}))
	require.NoError(t, err)
	found, ok := rpc.Detail[*conversationv1.Range](fmt.Errorf("read: %w", st.Err()))
	require.True(t, ok)
	require.Equal(t, uint64(3), found.GetFirst())
	for _, err := range []error{nil, errors.New("no status"), status.Error(codes.DataLoss, "no detail")} {
		_, ok = rpc.Detail[*conversationv1.Range](err)
		require.False(t, ok)
	}
	_, ok = rpc.Detail[*conversationv1.Event](st.Err())
	require.False(t, ok)
}
