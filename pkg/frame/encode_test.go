package frame_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/frame/internal/frametest"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// plain decodes one encoded frame with the official libraries, after removing the framing.
func plain(t require.TestingT, codec frame.Codec, data []byte, into proto.Message) {
	if codec != frame.Proto {
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

func codecs() []frame.Codec { return []frame.Codec{frame.Proto, frame.JSON, frame.JSONWithBytes} }

// canonical returns the output of protojson without the white space that it adds at random.
func canonical(t require.TestingT, m proto.Message) string {
	data, err := protojson.Marshal(m)
	require.NoError(t, err)
	var compact bytes.Buffer
	require.NoError(t, json.Compact(&compact, data))
	return compact.String() + "\n"
}

// events returns the events of a frame.
func events(f *clientv1.ServerFrame) []*clientv1.Event {
	if event := f.GetEvent(); event != nil {
		return []*clientv1.Event{event}
	}
	return f.GetPage().GetEvents()
}

// withBytes returns the frame with the correct BodyBytes; withoutBytes returns it without BodyBytes.
func withBytes(f *clientv1.ServerFrame) *clientv1.ServerFrame {
	f = proto.CloneOf(f)
	for _, event := range events(f) {
		event.BodyBytes, event.KindNumber = nil, 0
		if proto.Size(event.GetBody()) == 0 {
			event.Body = nil // a stored event never has an empty body
		} else {
			event.BodyBytes = deterministic(event.GetBody())
		}
	}
	return f
}

// deterministic encodes with sorted maps, so that BodyBytes are the same each time.
func deterministic(m proto.Message) []byte {
	return must(proto.MarshalOptions{Deterministic: true}.Marshal(m))
}

func withoutBytes(f *clientv1.ServerFrame) *clientv1.ServerFrame {
	f = proto.CloneOf(f)
	for _, event := range events(f) {
		event.BodyBytes = nil
	}
	return f
}

// expected returns the frame that a client receives if the server sends the frame f with the correct BodyBytes.
func expected(codec frame.Codec, f *clientv1.ServerFrame) *clientv1.ServerFrame {
	if codec == frame.JSON {
		return withoutBytes(f)
	}
	return f
}

// expectedStored returns the frame that a client receives if the server sends stored events. It also contains the bytes
// of the bodies and the numbers of the kinds.
func expectedStored(codec frame.Codec, f *clientv1.ServerFrame) *clientv1.ServerFrame {
	f = expected(codec, f)
	if codec != frame.JSONWithBytes {
		return f
	}
	f = proto.CloneOf(f)
	for _, event := range events(f) {
		event.KindNumber = uint32(event.GetKind())
	}
	return f
}

// forEveryField runs check on random frames in which every field of the schema is set at least a few times.
func forEveryField(t *testing.T, m proto.Message, options frametest.Options, check func(t require.TestingT, m proto.Message)) {
	t.Helper()
	frametest.EveryField(m, func(name string, way frametest.Way) {
		t.Run(name, func(t *testing.T) {
			options := options
			options.Set = way
			for seed := range 10 {
				one := rapid.Custom(func(t *rapid.T) proto.Message {
					one := proto.Clone(m)
					frametest.Fill(t, one, options)
					return one
				}).Example(seed)
				check(t, one)
			}
		})
	})
	t.Run("any", rapid.MakeCheck(func(t *rapid.T) {
		one := proto.Clone(m)
		frametest.Fill(t, one, options)
		check(t, one)
	}))
}

func TestServerFramesAreThoseOfTheOfficialLibraries(t *testing.T) {
	options := frametest.Options{OpenEnums: true, NoChoice: true}
	forEveryField(t, &clientv1.ServerFrame{}, options, func(t require.TestingT, m proto.Message) {
		want := withBytes(m.(*clientv1.ServerFrame))
		for _, codec := range codecs() {
			data := frame.AppendServer([]byte("before"), codec, want)
			data, found := bytes.CutPrefix(data, []byte("before"))
			require.True(t, found)
			if codec == frame.Proto {
				got := &clientv1.ServerFrame{}
				plain(t, codec, data, got)
				same(t, withoutBytes(want), got)
			} else {
				require.Equal(t, canonical(t, expected(codec, want)), string(data))
			}
			same(t, expected(codec, want), decodeOne(t, codec, data))
		}
		for _, official := range [][]byte{
			must(protojson.Marshal(want)), must(protojson.MarshalOptions{UseProtoNames: true, UseEnumNumbers: true, EmitUnpopulated: true}.Marshal(want)),
		} {
			same(t, want, decodeOne(t, frame.JSON, official))
		}
		same(t, want, decodeOne(t, frame.Proto, protowire.AppendBytes(nil, deterministic(withoutBytes(want)))))
	})
}

func decodeOne(t require.TestingT, codec frame.Codec, data []byte) *clientv1.ServerFrame {
	var frames []*clientv1.ServerFrame
	require.NoError(t, frame.DecodeServer(codec, data, func(f *clientv1.ServerFrame) error {
		frames = append(frames, f)
		return nil
	}))
	require.Len(t, frames, 1)
	return frames[0]
}

func TestClientFramesAreThoseOfTheOfficialLibraries(t *testing.T) {
	options := frametest.Options{OpenEnums: true, NoChoice: true}
	forEveryField(t, &clientv1.ClientFrame{}, options, func(t require.TestingT, m proto.Message) {
		want := m.(*clientv1.ClientFrame)
		for _, codec := range codecs() {
			data := frame.AppendClient(nil, codec, want)
			if codec == frame.Proto {
				got := &clientv1.ClientFrame{}
				plain(t, codec, data, got)
				same(t, want, got)
			} else {
				require.Equal(t, canonical(t, want), string(data))
			}
		}
	})
}

func TestShortcutsEncodeTheSameFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		outcome, receipt := &conversationv1.Outcome{}, &conversationv1.Receipt{}
		frametest.Fill(t, outcome, frametest.Options{})
		frametest.Fill(t, receipt, frametest.Options{})
		id := rapid.Uint64().Draw(t, "id")
		parent := rapid.SampledFrom([]string{"", frametest.Traceparent}).Draw(t, "traceparent")
		for _, codec := range codecs() {
			same(t, &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Outcome{Outcome: outcome}, Traceparent: parent},
				decodeOne(t, codec, frame.AppendOutcome(nil, codec, id, outcome, parent)))
			same(t, &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Receipt{Receipt: receipt}},
				decodeOne(t, codec, frame.AppendReceipt(nil, codec, receipt)))
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

const traceparent = frametest.Traceparent

func chatBody() *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{
		Text: string(bytes.Repeat([]byte("hello wo"), 16)),
	}}}
}

// chatEvent returns a stored event.
func chatEvent() *conversationv1.Event {
	return &conversationv1.Event{
		ConversationId: "g0123456789abcdefghijklmnop", Seq: 123456, TimeMs: 1795000000000, Sender: "alice",
		CommandId: "01890a5d-ac96-774b-bcce-b302099a8057", Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE,
		Body: must(chatBody().MarshalVT()), Salt: make([]byte, 16), PrevHash: make([]byte, 32), Hash: make([]byte, 32),
	}
}

// Encoding an event as JSON allocates only for the body: the body itself, its action, the message and its text.
func TestEncodingDoesNotAllocate(t *testing.T) {
	event, buf := chatEvent(), make([]byte, 0, 4096)
	outcome := &conversationv1.Outcome{ConversationId: "c", CommandId: "d", Seq: 1, TimeMs: 2}
	submit := submitFrame()
	receipt := &conversationv1.Receipt{ConversationId: "c", Delivered: []*conversationv1.Step{{Seq: 1, Members: 2}}}
	for _, codec := range codecs() {
		allocs := 0.
		if codec != frame.Proto {
			allocs = 4
		}
		require.InDelta(t, allocs, testing.AllocsPerRun(100, func() { frame.AppendEvent(buf, codec, event, traceparent) }), 0, codec)
		require.Zero(t, testing.AllocsPerRun(100, func() { frame.AppendOutcome(buf, codec, 7, outcome, traceparent) }), codec)
		require.Zero(t, testing.AllocsPerRun(100, func() { frame.AppendReceipt(buf, codec, receipt) }), codec)
		require.Zero(t, testing.AllocsPerRun(100, func() { frame.AppendClient(buf, codec, submit) }), codec)
	}
}
