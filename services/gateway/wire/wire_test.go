package wire_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/wire"
)

// A message has the header that RFC 6455 requires, in its shortest form.
func TestWebSocketMessagesHaveTheShortestHeader(t *testing.T) {
	for _, encoding := range []wire.Encoding{wire.WebSocketProto, wire.WebSocketJSON, wire.WebSocketJSONBytes} {
		for size, header := range map[int][]byte{
			0: {0}, 1: {1}, 125: {125}, 126: {126, 0, 126}, 0xffff: {126, 0xff, 0xff}, 0x10000: binary.BigEndian.AppendUint64([]byte{127}, 0x10000),
		} {
			payload := bytes.Repeat([]byte{'a'}, size)
			message := encoding.Message(func(dst []byte) []byte { return append(dst, payload...) })
			require.Equal(t, byte(0x80|encoding.Codec().MessageType()), message[0])
			require.Equal(t, header, message[1:1+len(header)])
			require.True(t, bytes.Equal(payload, message[1+len(header):]))
		}
	}
	require.Equal(t, []byte{0x89, 2, 'h', 'i'}, wire.AppendWebSocketFrame(nil, 9, []byte("hi")))
}

func TestAFrameIsAMessage(t *testing.T) {
	sent := &clientv1.ServerFrame{Id: 7, Message: &clientv1.ServerFrame_Refreshed{Refreshed: &clientv1.Refreshed{TokenExpiresMs: 9}}}
	for _, encoding := range []wire.Encoding{wire.WebSocketProto, wire.WebSocketJSON, wire.WebSocketJSONBytes} {
		message := encoding.Frame(sent)
		var got *clientv1.ServerFrame
		require.NoError(t, frame.DecodeServer(encoding.Codec(), message[2:], func(f *clientv1.ServerFrame) error {
			got = f
			return nil
		}))
		require.Equal(t, uint64(7), got.GetId())
		require.Equal(t, int64(9), got.GetRefreshed().GetTokenExpiresMs())
	}
}

func TestEncodingsWithBodyBytes(t *testing.T) {
	require.Equal(t, wire.WebSocketProto, wire.WebSocket(frame.Proto).WithBodyBytes(), "these encodings contain the bytes anyway")
	require.Equal(t, wire.WebSocketJSONBytes, wire.WebSocket(frame.JSON).WithBodyBytes())
	require.Equal(t, frame.JSONWithBytes, wire.WebSocketJSONBytes.WithBodyBytes().Codec())
}
