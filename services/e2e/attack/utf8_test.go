package attack_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/standalone"
)

// mark stands for a text that is replaced in the encoded frame, by one of as many bytes: encoders write no invalid text.
const mark = "MARKMARKMARK"

// badText is not UTF-8: a stray byte, a slash in two bytes, half a pair of UTF-16, half a character, and one beyond Unicode. Only
// JSON has the last: an escape that is half a pair.
var badText = []string{"\xffaaaaaaaaaaa", "aaaaa\xc0\xafaaaaa", "\xed\xa0\x80aaaaaaaaa", "aaaaaaaaa\xf0\x9f\x98", "\xf4\x90\x80\x80aaaaaaaa", `\ud800aaaaaa`}

var encodings = []attack{
	{
		name: "text that is no text", tries: "stray bytes, overlong forms, halves of characters and of UTF-16 pairs, and characters beyond Unicode, in every text of every frame, in JSON and in protobuf",
		seen:  "INVALID that says so, and 4500 after a refused connect or ten of them; nothing is stored",
		bound: bound{sockets: 5, megabytes: 64, calls: 150}, settings: func(t *testing.T, cfg *standalone.Config) {
			t.Helper()
			manyConnects(t, cfg)
			cfg.Gateway.FrameRate, cfg.Gateway.ReadRatePerUser = 1e6, 1e6
		}, run: garble,
	},
}

// textPath leads from a frame to a text in it. key means the key of the map at its end.
type textPath struct {
	fields []protoreflect.FieldDescriptor
	key    bool
}

func (p textPath) String() string {
	names := make([]string, 0, len(p.fields))
	for _, field := range p.fields {
		names = append(names, string(field.Name()))
	}
	return strings.Join(names, ".") + map[bool]string{true: " (key)"}[p.key]
}

// textPaths are those of all texts below a message.
func textPaths(message protoreflect.MessageDescriptor, above ...protoreflect.FieldDescriptor) (paths []textPath) {
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		fields := append(slices.Clip(above), field)
		switch {
		case field.IsMap():
			paths = append(paths, textPath{fields, true}, textPath{fields, false})
		case field.Message() != nil:
			paths = append(paths, textPaths(field.Message(), fields...)...)
		case field.Kind() == protoreflect.StringKind:
			paths = append(paths, textPath{fields, false})
		}
	}
	return paths
}

// frame is a frame with the mark at the end of the path. A submit is valid otherwise, if it is a message.
func (p textPath) frame(room string) *clientv1.ClientFrame {
	f := &clientv1.ClientFrame{Id: 7}
	if p.fields[0].Name() == "submit" {
		f.Request = &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
			ConversationId: room, CommandId: uuid.Must(uuid.NewV7()).String(),
			Body: &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "forged"}}},
		}}
	}
	at, last := f.ProtoReflect(), p.fields[len(p.fields)-1]
	for _, field := range p.fields[:len(p.fields)-1] {
		if field.IsList() {
			at = at.Mutable(field).List().AppendMutable().Message()
		} else {
			at = at.Mutable(field).Message()
		}
	}
	text := protoreflect.ValueOfString(mark)
	switch {
	case last.IsMap() && p.key:
		at.Mutable(last).Map().Set(text.MapKey(), protoreflect.ValueOfString("v"))
	case last.IsMap():
		at.Mutable(last).Map().Set(protoreflect.ValueOfString("k").MapKey(), text)
	case last.IsList():
		at.Mutable(last).List().Append(text)
	default:
		at.Set(last, text)
	}
	return f
}

func garble(s *target) {
	eve := s.connect("eve")
	before := eve.say()
	for _, codec := range []frame.Codec{frame.JSON, frame.Proto} {
		var c *client
		refused := 0
		for _, path := range textPaths((&clientv1.ClientFrame{}).ProtoReflect().Descriptor()) {
			encoded := frame.AppendClient(nil, codec, path.frame(eve.room))
			require.Equal(s, 1, bytes.Count(encoded, []byte(mark)), "%v", path)
			for _, bad := range badText {
				if codec == frame.Proto && strings.HasPrefix(bad, `\u`) {
					continue
				}
				message := bytes.Replace(encoded, []byte(mark), []byte(bad), 1)
				if path.fields[0].Name() == "connect" {
					stranger, err := s.trySocket(codec)
					require.NoError(s, err)
					require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_INVALID, stranger.send(message).GetCode(), "%v %q", path, bad)
					require.Equal(s, errcode.CloseProtocol, stranger.closed(), "%v %q", path, bad)
					stranger.leave()
					continue
				}
				if c == nil {
					c = s.connectWith("eve", codec)
				}
				answer := c.send(message)
				require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_INVALID, answer.GetCode(), "%v %q", path, bad)
				require.Regexp(s, "UTF-8|an escape that stands for no character", answer.GetMessage(), "%v %q", path, bad)
				if refused++; refused%10 == 0 { // as many as a connection may send
					require.Equal(s, errcode.CloseProtocol, c.closed())
					c.leave()
					c = nil
				}
			}
		}
		if c != nil {
			c.leave()
		}
		require.Greater(s, refused, 100)
	}
	require.Equal(s, before+1, eve.say(), "something was stored")
	s.during()
	eve.leave()
}

// send sends an encoded message, and returns the error that answers it.
func (c *client) send(message []byte) (refused *conversationv1.Error) {
	c.t.Helper()
	kind := websocket.TextMessage
	if c.codec == frame.Proto {
		kind = websocket.BinaryMessage
	}
	require.NoError(c.t, c.ws.WriteMessage(kind, message))
	for refused == nil {
		require.NoError(c.t, c.read(func(f *clientv1.ServerFrame) {
			require.Nil(c.t, f.GetOutcome(), "it was carried out")
			refused = f.GetError()
		}))
	}
	return refused
}

// closed reads until the connection is closed, and returns the code.
func (c *client) closed() errcode.CloseCode {
	c.t.Helper()
	for {
		err := c.read(func(*clientv1.ServerFrame) {})
		if closed, is := errors.AsType[*websocket.CloseError](err); is {
			return errcode.CloseCode(closed.Code)
		}
		require.NoError(c.t, err)
	}
}
