package partition

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/services/delivery/source"
)

func TestAgreement(t *testing.T) {
	entryAt := func(stream, admitted time.Duration) *source.Message {
		return &source.Message{TimeNs: int64(time.Hour + stream), Command: &brokerv1.Command{AdmittedMs: (time.Hour + admitted).Milliseconds()}}
	}
	require.NoError(t, Agrees(entryAt(0, 0)))
	require.NoError(t, Agrees(entryAt(0, 30*time.Second)))
	require.NoError(t, Agrees(entryAt(5*time.Minute, 0)), "a late copy is old")
	require.ErrorIs(t, Agrees(entryAt(0, 31*time.Second)), ErrClocks)
	require.ErrorIs(t, Agrees(&source.Message{Command: &brokerv1.Command{}}), ErrClocks, "nothing to compare with")
	require.NoError(t, Agrees(&source.Message{}), "no command")
}
