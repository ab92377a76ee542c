package frame_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/frame/internal/frametest"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func decodeClient(codec frame.Codec, data []byte) ([]*clientv1.ClientFrame, error) {
	var frames []*clientv1.ClientFrame
	err := frame.DecodeClient(codec, data, func(f *clientv1.ClientFrame) error {
		frames = append(frames, f)
		return nil
	})
	return frames, err
}

func TestServerAcceptsWhatClientsWrite(t *testing.T) {
	forEveryField(t, &clientv1.ClientFrame{}, frametest.Options{}, func(t require.TestingT, m proto.Message) {
		want := m.(*clientv1.ClientFrame)
		encodings := map[string][]byte{
			"camel": must(protojson.Marshal(want)),
			"snake": must(protojson.MarshalOptions{UseProtoNames: true}.Marshal(want)),
			"enums": must(protojson.MarshalOptions{UseEnumNumbers: true, EmitUnpopulated: true}.Marshal(want)),
			"ours":  frame.AppendClient(nil, frame.JSON, want),
		}
		for name, data := range encodings {
			got, err := decodeClient(frame.JSON, data)
			require.NoError(t, err, name)
			require.Len(t, got, 1)
			same(t, want, got[0])
		}
		official := must(proto.Marshal(want))
		for _, data := range [][]byte{frame.AppendClient(nil, frame.Proto, want), protowire.AppendBytes(nil, official)} {
			got, err := decodeClient(frame.Proto, data)
			require.NoError(t, err)
			require.Len(t, got, 1)
			same(t, want, got[0])
		}
	})
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func TestBadJSONIsRefusedByField(t *testing.T) {
	// No error text may contain this secret.
	const secret = "s3cret-payload"
	cases := []struct{ name, data, field, message string }{
		{"nothing", ``, "", "carries no frame"},
		{"blank line", "\n", "", "must be an object"},
		{"not JSON", `hello ` + secret, "", "must be an object"},
		{"cut off", `{"id":1,"pong":{}`, "", "not valid JSON"},
		{"cut off in a string", `{"id":1,"refresh":{"token":"` + secret, "refresh.token", "not valid JSON"},
		{"cut off in an escape", `{"refresh":{"token":"\`, "refresh.token", "not valid JSON"},
		{"single quotes", `{'id':1}`, "", "not valid JSON"},
		{"trailing comma", `{"pong":{},}`, "", "not valid JSON"},
		{"comment", `{/**/"pong":{}}`, "", "not valid JSON"},
		{"array for a frame", `[{"pong":{}}]`, "", "must be an object"},
		{"two frames on a line", `{"pong":{}}{"pong":{}}`, "", "followed by something else"},
		{"garbage after the frame", `{"pong":{}} ` + secret, "", "followed by something else"},
		{"frame over two lines", "{\"pong\":\n{}}", "pong", "must be an object"},
		{"no request", `{"id":1}`, "", "exactly one request"},
		{"null request", `{"id":1,"pong":null}`, "", "exactly one request"},
		{"two requests", `{"pong":{},"ack":{}}`, "ack", "second choice"},
		{"two actions", `{"submit":{"body":{"leave":{},"rename":{}}}}`, "submit.body.rename", "second choice"},
		{"unknown field", `{"` + secret + `":1}`, "", "does not know"},
		{"unknown field within", `{"submit":{"body":{"message":{"` + secret + `":1}}}}`, "submit.body.message", "does not know"},
		{"client-set sender", `{"submit":{"sender":"` + secret + `"}}`, "submit", "does not know"},
		{"client-set seq", `{"submit":{"seq":1}}`, "submit", "does not know"},
		{"client-set time", `{"submit":{"timeMs":"1"}}`, "submit", "does not know"},
		{"duplicate key", `{"id":1,"id":2,"pong":{}}`, "id", "given twice"},
		{"duplicate key by its other name", `{"submit":{"commandId":"a","command_id":"b"}}`, "submit.command_id", "given twice"},
		{"duplicate key by an escape", `{"id":1,"\u0069d":2,"pong":{}}`, "id", "given twice"},
		{"duplicate request", `{"pong":{},"pong":{}}`, "pong", "given twice"},
		{"duplicate metadata", `{"submit":{"body":{"message":{"metadata":{"` + secret + `":"1","` + secret + `":"2"}}}}}`, "submit.body.message.metadata", "key twice"},
		{"text for a number", `{"read":{"after":"` + secret + `"}}`, "read.after", "whole number"},
		{"negative", `{"read":{"after":-1}}`, "read.after", "from 0 to"},
		{"fraction", `{"read":{"after":1.5}}`, "read.after", "whole number"},
		{"exponent", `{"read":{"after":1e3}}`, "read.after", "whole number"},
		{"leading zero", `{"read":{"after":01}}`, "read.after", "whole number"},
		{"too large for 64 bits", `{"read":{"after":18446744073709551616}}`, "read.after", "from 0 to"},
		{"too large for 32 bits", `{"read":{"limit":4294967296}}`, "read.limit", "from 0 to 4294967295"},
		{"number for text", `{"submit":{"commandId":1}}`, "submit.command_id", "must be a string"},
		{"object for text", `{"refresh":{"token":{}}}`, "refresh.token", "must be a string"},
		{"text for a bool", `{"connect":{"accepted":"true"}}`, "connect.accepted", "true or false"},
		{"object for a list", `{"ack":{"positions":{}}}`, "ack.positions", "must be an array"},
		{"text in a list of objects", `{"ack":{"positions":[{},"` + secret + `"]}}`, "ack.positions[1]", "must be an object"},
		{"null in a list", `{"submit":{"body":{"addMembers":{"members":["a",null]}}}}`, "submit.body.add_members.members[1]", "must be a string"},
		{"unknown enum", `{"connect":{"start":"` + secret + `"}}`, "connect.start", "does not know"},
		{"unknown enum number", `{"connect":{"start":99}}`, "connect.start", "does not know"},
		{"metadata value not text", `{"submit":{"body":{"message":{"metadata":{"a":1}}}}}`, "submit.body.message.metadata", "must be a string"},
		{"invalid UTF-8", "{\"refresh\":{\"token\":\"" + secret + "\xff\"}}", "refresh.token", "UTF-8"},
		{"invalid UTF-8 beside an escape", "{\"refresh\":{\"token\":\"\\n\xff\"}}", "refresh.token", "UTF-8"},
		{"invalid UTF-8 in a key", "{\"\xff\":1}", "", "UTF-8"},
		{"lone surrogate", `{"refresh":{"token":"\ud800"}}`, "refresh.token", "stands for no character"},
		{"half a pair", `{"refresh":{"token":"\ud800\u0041"}}`, "refresh.token", "stands for no character"},
		{"bad escape", `{"refresh":{"token":"\x41"}}`, "refresh.token", "not valid JSON"},
		{"raw control character", "{\"refresh\":{\"token\":\"\x01\"}}", "refresh.token", "not valid JSON"},
		{"deep array", `{"submit":` + strings.Repeat("[", 100_000), "submit", "must be an object"},
		{"deep object in an unknown field", `{"x":` + strings.Repeat(`{"x":`, 100_000), "", "does not know"},
		{"65 frames", strings.Repeat("{\"pong\":{}}\n", 65), "", "more than 64 frames"},
		{"65 lines", strings.Repeat("\n", 65), "", "more than 64 frames"},
		{"byte order mark", "\uFEFF{\"pong\":{}}", "", "must be an object"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			frames, err := decodeClient(frame.JSON, []byte(c.data))
			requireRefused(t, err, c.field, c.message)
			require.Empty(t, frames)
			require.NotContains(t, err.Error(), secret)
		})
	}
}

func TestATraceparentIsExactlyRightOrRefused(t *testing.T) {
	ask := func(codec frame.Codec, text string) (*clientv1.Submit, error) {
		submit := submitFrame()
		submit.GetSubmit().Traceparent = text
		frames, err := decodeClient(codec, frame.AppendClient(nil, codec, submit))
		if err != nil {
			require.Empty(t, frames)
			return nil, err
		}
		return frames[0].GetSubmit(), nil
	}
	const zeros = "00000000000000000000000000000000"
	for _, codec := range codecs() {
		for _, good := range []string{"", traceparent, strings.TrimSuffix(traceparent, "01") + "00", strings.TrimSuffix(traceparent, "01") + "ff"} {
			submit, err := ask(codec, good)
			require.NoError(t, err, good)
			require.Equal(t, good, submit.GetTraceparent())
		}
		for name, bad := range map[string]string{
			"short":               traceparent[:54],
			"long":                traceparent + "0",
			"other version":       "01" + traceparent[2:],
			"upper case":          strings.ToUpper(traceparent),
			"no hex in the trace": strings.Replace(traceparent, "0af", "0ag", 1),
			"no hex in the span":  strings.Replace(traceparent, "b7a", "\n7a", 1),
			"no hex in the flags": traceparent[:54] + "x",
			"trace of zeros":      "00-" + zeros + traceparent[35:],
			"span of zeros":       traceparent[:36] + zeros[:16] + "-01",
			"no first dash":       strings.Replace(traceparent, "-", "0", 1),
			"no second dash":      traceparent[:35] + "0" + traceparent[36:],
			"no third dash":       traceparent[:52] + "0" + traceparent[53:],
			"very long":           strings.Repeat("0", 10_000),
		} {
			_, err := ask(codec, bad)
			refused := requireRefused(t, err, "submit.traceparent", "must be a W3C trace context")
			require.Equal(t, uint64(12), refused.ID, name)
			require.NotContains(t, refused.Error(), bad, name)
		}
	}
}

func requireRefused(t *testing.T, err error, field, message string) *frame.Error {
	t.Helper()
	var refused *frame.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, field, refused.Field)
	require.Contains(t, refused.Message, message)
	return refused
}

func TestBadProtobufIsRefusedByField(t *testing.T) {
	const secret = "s3cret-payload"
	bytesField := func(number protowire.Number, content ...byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
	}
	varint := func(number protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), v)
	}
	join := func(parts ...[]byte) (all []byte) {
		for _, part := range parts {
			all = append(all, part...)
		}
		return all
	}
	pong := bytesField(9)
	entry := bytesField(3, join(bytesField(1, 'k'), bytesField(2, 'v'))...)
	inMessage := func(content []byte) []byte { return bytesField(4, bytesField(3, bytesField(2, content...)...)...) }
	cases := []struct {
		name           string
		content        []byte
		field, message string
	}{
		{"no request", varint(1, 7), "", "exactly one request"},
		{"empty frame", nil, "", "exactly one request"},
		{"not protobuf", []byte{0xff, 0xff}, "", "not a protobuf message"},
		{"cut off", pong[:1], "pong", "not a protobuf message"},
		{"unknown field", join(pong, varint(99, 1)), "", "does not know"},
		{"unknown field within", bytesField(4, bytesField(9, []byte(secret)...)...), "submit", "does not know"},
		{"unknown field deep", inMessage(bytesField(9, []byte(secret)...)), "submit.body.message", "does not know"},
		{"unknown field in a map entry", inMessage(bytesField(3, bytesField(3, []byte(secret)...)...)), "submit.body.message.metadata", "does not know"},
		{"unknown field of a group type", join(pong, []byte{0x63, 0x64}), "", "does not know"},
		{"field twice", join(varint(1, 1), varint(1, 2), pong), "id", "given twice"},
		{"two requests", join(pong, bytesField(8)), "ack", "second choice"},
		{"one request twice", join(pong, pong), "pong", "given twice"},
		{"two actions", bytesField(4, bytesField(3, join(bytesField(5), bytesField(6))...)...), "submit.body.rename", "second choice"},
		{"metadata key twice", inMessage(join(entry, entry)), "submit.body.message.metadata", "key twice"},
		{"number for a message", varint(4, 1), "submit", "wrong type"},
		{"bytes for a number", join(bytesField(1), pong), "id", "wrong type"},
		{"fixed for a number", join(protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), 1), pong), "id", "wrong type"},
		{"invalid UTF-8", bytesField(3, bytesField(1, 's', 0xff)...), "refresh.token", "UTF-8"},
		{"invalid UTF-8 in a list", bytesField(4, bytesField(3, bytesField(3, join(bytesField(1, 'a'), bytesField(1, 0xc0))...)...)...), "submit.body.add_members.members[1]", "UTF-8"},
		{"too large for 32 bits", bytesField(5, varint(4, 1<<32)...), "read.limit", "at most 4294967295"},
		{"unknown enum", bytesField(2, varint(4, 99)...), "connect.start", "does not know"},
		{"negative enum", bytesField(2, varint(4, 1<<64-1)...), "connect.start", "does not know"},
		{"bool of 2", bytesField(2, varint(5, 2)...), "connect.accepted", "wrong type"},
		{"field number 0", join(pong, []byte{0x00, 0x00}), "", "not a protobuf message"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			frames, err := decodeClient(frame.Proto, protowire.AppendBytes(nil, c.content))
			requireRefused(t, err, c.field, c.message)
			require.Empty(t, frames)
			require.NotContains(t, err.Error(), secret)
		})
	}
}

func TestBrokenFramingIsFoundBeforeAnyFrameIsHandedOver(t *testing.T) {
	pong := frame.AppendClient(nil, frame.Proto, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}})
	for name, data := range map[string][]byte{
		"nothing":         nil,
		"cut off":         append(pong, pong[:1]...),
		"length too long": append(pong, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"endless length":  append(pong, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"65 frames":       []byte(strings.Repeat(string(pong), 65)),
	} {
		frames, err := decodeClient(frame.Proto, data)
		var refused *frame.Error
		require.ErrorAs(t, err, &refused, name)
		require.Empty(t, refused.Rest)
		require.Empty(t, frames, name)
	}
	frames, err := decodeClient(frame.Proto, []byte(strings.Repeat(string(pong), protocol.MaxFrames)))
	require.NoError(t, err)
	require.Len(t, frames, protocol.MaxFrames)
}

func TestAServerCanAnswerABadFrameAndGoOn(t *testing.T) {
	for _, codec := range codecs() {
		var data []byte
		if codec != frame.Proto {
			data = []byte("{\"id\":1,\"pong\":{}}\n{\"id\":\"2\",\"pong\":{\"x\":1}}\n{\"id\":3,\"pong\":{}}\n")
		} else {
			data = []byte{4, 8, 1, 0x4a, 0, 6, 8, 2, 0x4a, 2, 8, 1, 4, 8, 3, 0x4a, 0}
		}
		frames, err := decodeClient(codec, data)
		require.Len(t, frames, 1)
		refused := requireRefused(t, err, "pong", "does not know")
		require.Equal(t, uint64(2), refused.ID)
		frames, err = decodeClient(codec, refused.Rest)
		require.NoError(t, err)
		require.Len(t, frames, 1)
		require.Equal(t, uint64(3), frames[0].GetId())
	}
}

func TestAnErrorOfTheCallbackStopsAndComesBackAsItIs(t *testing.T) {
	stop := errors.New("stop")
	for _, codec := range codecs() {
		pong := frame.AppendClient(nil, codec, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}})
		calls := 0
		err := frame.DecodeClient(codec, append(pong, pong...), func(*clientv1.ClientFrame) error { calls++; return stop })
		require.Equal(t, stop, err)
		require.Equal(t, 1, calls)
	}
}

func TestAClientPassesOverWhatANewerServerSays(t *testing.T) {
	for name, line := range map[string]string{
		"unknown fields of all shapes": `{"x":{"a":[1,{"b":null}],"c":"}"},"event":{"seq":"7","y":[[]],"z":-1.5e3,"body":{"w":true,"message":{"text":"hi"}}},"v":false}`,
		"unknown event kind":           `{"event":{"seq":"7","kind":"EVENT_KIND_NEW"}}`,
		"unknown event kind by number": `{"event":{"seq":"7","kind":4711}}`,
		"white space":                  ` { "event" : { "seq" : 7 } } `,
	} {
		require.NoError(t, frame.DecodeServer(frame.JSON, []byte(line), func(f *clientv1.ServerFrame) error {
			require.Equal(t, uint64(7), f.GetEvent().GetSeq(), name)
			return nil
		}), name)
	}
	frames := 0
	require.NoError(t, frame.DecodeServer(frame.JSON, []byte("{\"news\":{}}\n\n{\"id\":1,\"connected\":{\"x\":1}}\n"), func(f *clientv1.ServerFrame) error {
		frames++
		return nil
	}))
	require.Equal(t, 2, frames)
}

func TestAClientSurvivesABrokenServer(t *testing.T) {
	for _, data := range []string{`{`, `nothing`, `{"event":[]}`, `{"event":{"hash":"*"}}`, `{"connected":{"userId":1}}`, `{"x":}`, `{"x":{]}`, `{"x":[}`} {
		var broken *frame.Error
		require.ErrorAs(t, frame.DecodeServer(frame.JSON, []byte(data), func(*clientv1.ServerFrame) error { return nil }), &broken, data)
	}
	for _, data := range [][]byte{{0xff}, {5, 1}, {1, 0xff}} {
		var broken *frame.Error
		require.ErrorAs(t, frame.DecodeServer(frame.Proto, data, func(*clientv1.ServerFrame) error { return nil }), &broken)
	}
}

func TestSubprotocols(t *testing.T) {
	for _, name := range frame.Subprotocols() {
		codec, ok := frame.CodecFor(name)
		require.True(t, ok)
		require.Equal(t, name, codec.Subprotocol())
		var again frame.Codec
		require.NoError(t, again.UnmarshalText([]byte(codec.String())))
		require.Equal(t, codec, again)
	}
	_, ok := frame.CodecFor("runnel.v2.json")
	require.False(t, ok)
	require.Error(t, new(frame.Codec).UnmarshalText([]byte("xml")))
}

func submitFrame() *clientv1.ClientFrame {
	event := chatEvent()
	return &clientv1.ClientFrame{Id: 12, Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
		ConversationId: event.GetConversationId(), CommandId: event.GetCommandId(), Body: chatBody(), Traceparent: traceparent,
	}}}
}

// FuzzDecodeClientJSON searches for panics, and for input that is decoded differently from the official library.
func FuzzDecodeClientJSON(f *testing.F) {
	seeds(f, frame.JSON)
	f.Add([]byte(`{"id":"1","submit":{"conversation_id":"\u0041\ud83d\ude00","body":{"message":{"metadata":{"a":"b"}}}}}`))
	f.Add([]byte(`{"connect":{"resume":[{"seq":1},{}],"start":2,"noReceipts":true}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		frames, err := decodeClient(frame.JSON, data)
		requireTyped(t, err)
		for i, got := range frames {
			want := &clientv1.ClientFrame{}
			require.NoError(t, protojson.Unmarshal([]byte(lines[i]), want))
			same(t, want, got)
		}
	})
}

func FuzzDecodeClientProto(f *testing.F) {
	seeds(f, frame.Proto)
	f.Fuzz(func(t *testing.T, data []byte) {
		frames, err := decodeClient(frame.Proto, data)
		requireTyped(t, err)
		for _, got := range frames {
			content, n := protowire.ConsumeBytes(data)
			data = data[n:]
			want := &clientv1.ClientFrame{}
			require.NoError(t, proto.Unmarshal(content, want))
			require.Empty(t, want.ProtoReflect().GetUnknown())
			same(t, want, got)
		}
	})
}

// FuzzDecodeServer searches for panics, for input that is decoded differently from the official libraries, and for frames
// that cannot be sent again unchanged.
func FuzzDecodeServer(f *testing.F) {
	for _, codec := range codecs() {
		data := frame.AppendEvent(nil, codec, chatEvent(), traceparent)
		data = frame.AppendPage(data, codec, 4, &frame.Page{Events: []*conversationv1.Event{chatEvent()}, Head: 7})
		data = frame.AppendOutcome(data, codec, 3, &conversationv1.Outcome{Error: &conversationv1.Error{Code: 9, RetryAfterMs: 7}}, traceparent)
		f.Add(codec != frame.Proto, frame.AppendReceipt(data, codec, &conversationv1.Receipt{Read: []*conversationv1.Step{{Seq: 1}}}))
	}
	f.Fuzz(func(t *testing.T, isJSON bool, data []byte) {
		if isJSON {
			data, _, _ = bytes.Cut(data, []byte("\n"))
			requireTyped(t, frame.DecodeServer(frame.JSON, data, func(got *clientv1.ServerFrame) error {
				want := &clientv1.ServerFrame{}
				// This decoder does not validate skipped fields.
				if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, want) == nil {
					same(t, want, got)
				}
				same(t, got, decodeOne(t, frame.JSON, frame.AppendServer(nil, frame.JSONWithBytes, got)))
				frame.AppendServer(nil, frame.JSON, got)
				frame.AppendServer(nil, frame.Proto, got)
				return nil
			}))
			return
		}
		requireTyped(t, frame.DecodeServer(frame.Proto, data, func(got *clientv1.ServerFrame) error {
			content, n := protowire.ConsumeBytes(data)
			data = data[n:]
			want := &clientv1.ServerFrame{}
			frame.AppendServer(nil, frame.Proto, got)
			frame.AppendServer(nil, frame.JSON, got)
			if isText := proto.Unmarshal(content, want) == nil; !isText {
				return nil // this decoder accepts text that is not UTF-8
			}
			same(t, withoutBytes(want), withoutBytes(got))
			known := &clientv1.ServerFrame{}
			require.NoError(t, proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(must(proto.Marshal(got)), known))
			same(t, known, decodeOne(t, frame.JSON, frame.AppendServer(nil, frame.JSONWithBytes, got)))
			return nil
		}))
	})
}

func seeds(f *testing.F, codec frame.Codec) {
	f.Add([]byte{})
	f.Add(frame.AppendClient(nil, codec, submitFrame()))
	f.Add(frame.AppendClient(frame.AppendClient(nil, codec, submitFrame()), codec, &clientv1.ClientFrame{
		Request: &clientv1.ClientFrame_Ack{Ack: &clientv1.Ack{Positions: []*clientv1.AckPosition{{ConversationId: "x", Delivered: 3}, {Read: 9}}}},
	}))
	f.Add(frame.AppendClient(nil, codec, &clientv1.ClientFrame{Id: 1, Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{
		Token: "t", DeviceId: "d", Resume: []*clientv1.Position{{ConversationId: "x", Seq: 1}}, Start: clientv1.Start_START_FIRST,
	}}}))
}

func requireTyped(t *testing.T, err error) {
	t.Helper()
	var typed *frame.Error
	if err != nil && !errors.As(err, &typed) {
		t.Fatal(fmt.Errorf("not a *frame.Error: %w", err))
	}
}
