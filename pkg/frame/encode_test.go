package frame_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// plain decodes one encoded frame with the official libraries and our framing undone by hand.
func plain(t require.TestingT, codec frame.Codec, data []byte, into proto.Message) {
	if codec == frame.JSON {
		require.Equal(t, 1, bytes.Count(data, []byte("\n")), "a frame is one line")
		require.NoError(t, protojson.Unmarshal(data, into))
		return
	}
	content, n := protowire.ConsumeBytes(data)
	require.Equal(t, len(data), n)
	require.NoError(t, proto.Unmarshal(content, into))
}

func same(t require.TestingT, want, got proto.Message) {
	require.True(t, proto.Equal(want, got), "want %v\ngot %v", want, got)
}

func codecs() []frame.Codec { return []frame.Codec{frame.Proto, frame.JSON} }

func TestServerFramesAreWhatTheOfficialLibrariesRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &clientv1.ServerFrame{}
		fill(t, want.ProtoReflect())
		for _, codec := range codecs() {
			data := frame.AppendServer([]byte("before"), codec, want)
			data, found := bytes.CutPrefix(data, []byte("before"))
			require.True(t, found)
			got := &clientv1.ServerFrame{}
			plain(t, codec, data, got)
			same(t, want, got)

			frames := 0
			require.NoError(t, frame.DecodeServer(codec, data, func(got *clientv1.ServerFrame) error {
				frames++
				same(t, want, got)
				return nil
			}))
			require.Equal(t, 1, frames)
		}
	})
}

func TestServerReadsWhatTheOfficialLibrariesWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &clientv1.ServerFrame{}
		fill(t, want.ProtoReflect())
		data, err := protojson.Marshal(want)
		require.NoError(t, err)
		require.NoError(t, frame.DecodeServer(frame.JSON, data, func(got *clientv1.ServerFrame) error {
			same(t, want, got)
			return nil
		}))
	})
}

func TestShortcutsEncodeTheSameFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		event, outcome, receipt := &conversationv1.Event{}, &conversationv1.Outcome{}, &conversationv1.Receipt{}
		fill(t, event.ProtoReflect())
		fill(t, outcome.ProtoReflect())
		fill(t, receipt.ProtoReflect())
		id := rapid.Uint64().Draw(t, "id")
		parent := rapid.SampledFrom([]string{"", traceparent}).Draw(t, "traceparent")
		for _, codec := range codecs() {
			got := &clientv1.ServerFrame{}
			plain(t, codec, frame.AppendEvent(nil, codec, event, parent), got)
			same(t, &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: event}, Traceparent: parent}, got)
			plain(t, codec, frame.AppendOutcome(nil, codec, id, outcome, parent), got)
			same(t, &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Outcome{Outcome: outcome}, Traceparent: parent}, got)
			plain(t, codec, frame.AppendReceipt(nil, codec, receipt), got)
			same(t, &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Receipt{Receipt: receipt}}, got)
		}
	})
}

func TestFramesConcatenate(t *testing.T) {
	for _, codec := range codecs() {
		var data []byte
		for id := range uint64(5) {
			data = frame.AppendOutcome(data, codec, id+1, &conversationv1.Outcome{Seq: id}, "")
		}
		var ids []uint64
		require.NoError(t, frame.DecodeServer(codec, data, func(f *clientv1.ServerFrame) error {
			ids = append(ids, f.GetId())
			return nil
		}))
		require.Equal(t, []uint64{1, 2, 3, 4, 5}, ids)
	}
}

func TestTextThatIsNotUTF8IsMadeValid(t *testing.T) {
	data := frame.AppendEvent(nil, frame.JSON, &conversationv1.Event{Sender: "a\xffb\xe2\x82"}, "")
	got := &clientv1.ServerFrame{}
	plain(t, frame.JSON, data, got)
	require.Equal(t, "a\uFFFDb\uFFFD\uFFFD", got.GetEvent().GetSender())
}

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func chatEvent() *conversationv1.Event {
	return &conversationv1.Event{
		ConversationId: "g0123456789abcdefghijklmnop", Seq: 123456, TimeMs: 1795000000000, Sender: "alice",
		CommandId: "01890a5d-ac96-774b-bcce-b302099a8057", Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE,
		Body: &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{
			Text: string(bytes.Repeat([]byte("hello wo"), 16)),
		}}},
		Salt: make([]byte, 16), PrevHash: make([]byte, 32), Hash: make([]byte, 32),
	}
}

func TestEncodingEventsDoesNotAllocate(t *testing.T) {
	event, buf := chatEvent(), make([]byte, 0, 4096)
	for _, codec := range codecs() {
		require.Zero(t, testing.AllocsPerRun(100, func() { frame.AppendEvent(buf, codec, event, traceparent) }), codec)
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	event := chatEvent()
	for _, codec := range codecs() {
		b.Run(codec.String(), func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 4096)
			for b.Loop() {
				buf = frame.AppendEvent(buf[:0], codec, event, "")
			}
		})
	}
	b.Run("protojson", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = protojson.Marshal(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: event}})
		}
	})
}

func BenchmarkAppendOutcome(b *testing.B) {
	event := chatEvent()
	outcome := &conversationv1.Outcome{ConversationId: event.GetConversationId(), CommandId: event.GetCommandId(), Seq: 7, TimeMs: event.GetTimeMs()}
	for _, codec := range codecs() {
		b.Run(codec.String(), func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 4096)
			for b.Loop() {
				buf = frame.AppendOutcome(buf[:0], codec, 12345, outcome, "")
			}
		})
	}
}

func BenchmarkDecodeServerEvent(b *testing.B) {
	for _, codec := range codecs() {
		data := frame.AppendEvent(nil, codec, chatEvent(), "")
		b.Run(codec.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = frame.DecodeServer(codec, data, func(*clientv1.ServerFrame) error { return nil })
			}
		})
	}
}
