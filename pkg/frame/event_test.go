package frame_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/frame/internal/frametest"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// randomEvent returns a stored event, and the same event in the form that clients receive, with the bytes of its body.
func randomEvent(t *rapid.T) (*conversationv1.Event, *clientv1.Event) {
	body, event := &conversationv1.Body{}, &conversationv1.Event{}
	frametest.Fill(t, body, frametest.Options{})
	frametest.Fill(t, event, frametest.Options{})
	event.Body = must(proto.Marshal(body))
	sent := &clientv1.Event{}
	event.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if field.Name() != "body" {
			sent.ProtoReflect().Set(sent.ProtoReflect().Descriptor().Fields().ByNumber(field.Number()), v)
		}
		return true
	})
	if rapid.Bool().Draw(t, "erased") {
		event.Body = nil
	} else {
		sent.Body, sent.BodyBytes = body, event.GetBody()
	}
	return event, sent
}

func TestStoredEventsBecomeThoseOfClients(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		event, sent := randomEvent(t)
		same(t, sent, frame.ToClient(event))
		same(t, event, frame.FromClient(sent))
		parent := rapid.SampledFrom([]string{"", traceparent}).Draw(t, "traceparent")
		want := &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: sent}, Traceparent: parent}
		for _, codec := range codecs() {
			data := frame.AppendEvent(nil, codec, event, parent)
			same(t, expectedStored(codec, want), decodeOne(t, codec, data))
			if codec != frame.Proto {
				require.Equal(t, canonical(t, expectedStored(codec, want)), string(data))
			}
		}
	})
}

func TestPagesOfStoredEventsBecomeThoseOfClients(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		page := &frame.Page{Head: rapid.Uint64().Draw(t, "head"), More: rapid.Bool().Draw(t, "more")}
		sent := &clientv1.Page{Head: page.Head, More: page.More}
		for range rapid.IntRange(0, 4).Draw(t, "events") {
			event, its := randomEvent(t)
			page.Events, sent.Events = append(page.Events, event), append(sent.Events, its)
		}
		for range rapid.IntRange(0, 2).Draw(t, "hidden") {
			hidden := &conversationv1.Range{}
			frametest.Fill(t, hidden, frametest.Options{})
			page.Hidden, sent.Hidden = append(page.Hidden, hidden), append(sent.Hidden, hidden)
		}
		id := rapid.Uint64().Draw(t, "id")
		want := &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Page{Page: sent}}
		for _, codec := range codecs() {
			data := frame.AppendPage(nil, codec, id, page)
			same(t, expectedStored(codec, want), decodeOne(t, codec, data))
			if codec != frame.Proto {
				require.Equal(t, canonical(t, expectedStored(codec, want)), string(data))
			}
		}
	})
}

// A protobuf client receives exactly the stored bytes of the event, and can decode them as a stored event.
func TestProtobufClientsGetTheStoredBytes(t *testing.T) {
	for name, body := range oddBodies() {
		event := chatEvent()
		event.Body = body
		content, n := protowire.ConsumeBytes(frame.AppendEvent(nil, frame.Proto, event, ""))
		require.Positive(t, n)
		want := protowire.AppendTag(nil, 9, protowire.BytesType)
		want = protowire.AppendBytes(want, must(event.MarshalVT()))
		require.Equal(t, want, content, name)
	}
}

// oddBodies returns bodies that this version would not write.
func oddBodies() map[string][]byte {
	text := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "hello")
	message := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), text)
	newer := protowire.AppendBytes(protowire.AppendTag(nil, 500, protowire.BytesType), []byte{8, 1})
	beside := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 7)
	return map[string][]byte{
		"a newer action":                           newer,
		"a known action with a newer field":        append(message, beside...),
		"a newer field before the action":          append(beside, message...),
		"a newer field in the message":             protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), append(text, beside...)),
		"an action that nobody encodes like this":  {0x92, 0x00, 0x00},
		"an empty action":                          {0x12, 0x00},
		"a default that was not left out":          {0x12, 0x02, 0x10, 0x00},
		"the same action twice, which is no error": append(message, message...),
	}
}

func TestABodyOfANewerVersionArrives(t *testing.T) {
	for name, body := range oddBodies() {
		t.Run(name, func(t *testing.T) {
			event := chatEvent()
			event.Body, event.Commitment = body, []byte("commitment")
			known := &conversationv1.Body{}
			require.NoError(t, proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, known))
			for _, codec := range codecs() {
				got := decodeOne(t, codec, frame.AppendEvent(nil, codec, event, "")).GetEvent()
				require.NotNil(t, got.GetBody())
				if codec != frame.Proto {
					same(t, known, got.GetBody())
				}
				if codec != frame.JSON {
					require.Equal(t, body, got.GetBodyBytes())
					same(t, event, frame.FromClient(got))
				}
				require.Equal(t, "commitment", string(got.GetCommitment()))
				require.Equal(t, event.GetSeq(), got.GetSeq())

				got = decodeOne(t, codec, frame.AppendPage(nil, codec, 1, &frame.Page{Events: []*conversationv1.Event{event}})).GetPage().GetEvents()[0]
				if codec != frame.JSON {
					same(t, event, frame.FromClient(got))
				}
			}
		})
	}
}

// JSON must not lose an event whose body cannot be decoded.
func TestABodyThatIsNoProtobufStillGoesOut(t *testing.T) {
	for _, body := range [][]byte{{0xff}, {0x12, 0x05, 0x01}, []byte("not protobuf at all")} {
		event := chatEvent()
		event.Body, event.Commitment = body, []byte("commitment")
		for _, codec := range []frame.Codec{frame.JSON, frame.JSONWithBytes} {
			got := decodeOne(t, codec, frame.AppendEvent(nil, codec, event, "")).GetEvent()
			require.NotNil(t, got.GetBody())
			require.Equal(t, "commitment", string(got.GetCommitment()))
			if codec == frame.JSONWithBytes {
				same(t, event, frame.FromClient(got))
			}
		}
	}
}

func TestAnErasedEventHasNoBody(t *testing.T) {
	event := chatEvent()
	event.Body, event.Salt = nil, nil
	for _, codec := range codecs() {
		got := decodeOne(t, codec, frame.AppendEvent(nil, codec, event, "")).GetEvent()
		require.Nil(t, got.GetBody(), codec)
		require.Nil(t, got.GetBodyBytes(), codec)
	}
}

func TestBodyBytesAreThoseOfTheWire(t *testing.T) {
	field := func(number protowire.Number, content ...[]byte) []byte {
		var all []byte
		for _, part := range content {
			all = append(all, part...)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), all)
	}
	decode := func(content []byte) (*clientv1.ServerFrame, error) {
		var got *clientv1.ServerFrame
		err := frame.DecodeServer(frame.Proto, protowire.AppendBytes(nil, content), func(f *clientv1.ServerFrame) error {
			got = f
			return nil
		})
		return got, err
	}
	body, sender, id := field(7, field(5)), field(4, []byte("alice")), []byte{8, 3}
	forged := field(14, []byte("forged"))

	for name, content := range map[string][]byte{
		"body before":  field(9, body, sender),
		"body after":   field(9, sender, body),
		"forged bytes": field(9, forged, body, forged),
	} {
		got, err := decode(content)
		require.NoError(t, err, name)
		require.Equal(t, field(5), got.GetEvent().GetBodyBytes(), name)
	}
	got, err := decode(field(9, sender, forged))
	require.NoError(t, err)
	require.Nil(t, got.GetEvent().GetBodyBytes(), "no body, so no bytes of it")
	got, err = decode(field(9, field(7)))
	require.NoError(t, err)
	require.Equal(t, []byte{}, got.GetEvent().GetBodyBytes(), "an empty body")

	got, err = decode(field(6, field(1, sender), field(2, []byte{8, 1}), field(1, body), field(1, field(7, field(6))), forged))
	require.NoError(t, err)
	require.Len(t, got.GetPage().GetEvents(), 3)
	require.Nil(t, got.GetPage().GetEvents()[0].GetBodyBytes())
	require.Equal(t, field(5), got.GetPage().GetEvents()[1].GetBodyBytes())
	require.Equal(t, field(6), got.GetPage().GetEvents()[2].GetBodyBytes())

	for name, content := range map[string][]byte{
		"body twice":             field(9, body, body),
		"other body":             field(9, body, field(7, field(6))),
		"event twice":            append(field(9, body), field(9, body)...),
		"body twice in a page":   field(6, field(1, sender), field(1, body, body)),
		"page twice":             append(field(6, field(1, body)), field(6, field(1, body))...),
		"body of the wrong type": field(9, []byte{0x38, 0x01}),
		"a tag that is too long": field(9, protowire.AppendVarint(nil, 1<<35|7<<3|2), field(5)),
	} {
		_, err := decode(append(id, content...))
		var broken *frame.Error
		require.ErrorAs(t, err, &broken, name)
	}
}

func TestBodyBytesOfJSONAreWhatWasSent(t *testing.T) {
	got := decodeOne(t, frame.JSON, []byte(`{"event":{"body":{"leave":{}},"bodyBytes":"KgA="}}`)).GetEvent()
	require.Equal(t, []byte{0x2a, 0}, got.GetBodyBytes())
}

// A received frame can be sent again with any codec.
func TestAnEventThatArrivedCanBeSentOn(t *testing.T) {
	for name, body := range oddBodies() {
		event := chatEvent()
		event.Body = body
		for _, from := range []frame.Codec{frame.Proto, frame.JSONWithBytes} {
			for _, to := range codecs() {
				arrived := decodeOne(t, from, frame.AppendEvent(nil, from, event, traceparent))
				if to == frame.JSONWithBytes {
					arrived = expectedStored(to, arrived)
				}
				require.Equal(t, frame.AppendEvent(nil, to, event, traceparent), frame.AppendServer(nil, to, arrived), fmt.Sprint(name, from, to))
			}
		}
	}
}

// A JSON client that is older than a kind does not know the kind's name, and needs its number to verify the header.
func TestTheNumberOfAnUnknownKindArrives(t *testing.T) {
	event := chatEvent()
	event.Kind = 998
	data := bytes.Replace(frame.AppendEvent(nil, frame.JSONWithBytes, event, ""), []byte(`"kind":998`), []byte(`"kind":"EVENT_KIND_OF_THE_FUTURE"`), 1)
	got := decodeOne(t, frame.JSON, data).GetEvent()
	require.Equal(t, conversationv1.EventKind(998), frame.FromClient(got).GetKind())
}
