package rpc

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	protobuf "google.golang.org/protobuf/proto"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Both codecs can decode each other's output: full and empty messages, pooled and small buffers.
func TestCodecSpeaksWithGRPCs(t *testing.T) {
	standard := encoding.GetCodecV2(proto.Name)
	for _, message := range []protobuf.Message{
		&historyv1.AppendRequest{},
		&historyv1.AppendRequest{Partition: 3, Next: &historyv1.Watermark{Stream: "x", Sequence: 9}},
		&historyv1.AppendRequest{DeadLetters: []*historyv1.DeadLetter{{Reason: "r", Payload: make([]byte, 100_000)}}},
		&healthv1.HealthCheckRequest{Service: "s"}, // not generated with vtproto
	} {
		for _, pair := range [][2]encoding.CodecV2{{codec{}, standard}, {standard, codec{}}, {codec{}, codec{}}} {
			data, err := pair[0].Marshal(message)
			require.NoError(t, err)
			got := message.ProtoReflect().New().Interface()
			if request, ok := got.(*historyv1.AppendRequest); ok {
				request.Partition = 77 // existing content, which decoding must replace
			}
			require.NoError(t, pair[1].Unmarshal(data, got))
			data.Free()
			require.True(t, protobuf.Equal(message, got), "%v", got)
		}
	}
}

func TestCodecRefuses(t *testing.T) {
	_, err := codec{}.Marshal("text")
	require.ErrorContains(t, err, "no protobuf message")
	garbage := mem.BufferSlice{mem.SliceBuffer{0xff}}
	var text string
	require.ErrorContains(t, codec{}.Unmarshal(garbage, &text), "no protobuf message")
	require.ErrorContains(t, codec{}.Unmarshal(garbage, &historyv1.AppendRequest{}), "decoding")
	require.ErrorContains(t, codec{}.Unmarshal(garbage, &healthv1.HealthCheckRequest{}), "decoding")
}
