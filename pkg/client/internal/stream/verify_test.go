package stream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func saying(text string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}}
}

// sealed returns the first event of a log, with these body bytes, in the form of a JSON codec with bytes.
func sealed(body []byte) *clientv1.Event {
	event := &conversationv1.Event{
		ConversationId: "c", Seq: 1, Sender: "bob", CommandId: "command", Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE,
		Salt: make([]byte, 16), Body: body, PrevHash: make([]byte, chain.Size),
	}
	chain.Seal(event)
	told := frame.ToClient(event)
	told.BodyBytes = body
	return told
}

// JSON events contain the body twice, and only the bytes are verified. A decoded body that differs is not passed to the
// program.
func TestTheBodyThatWasVerifiedIsPassedOn(t *testing.T) {
	body, err := conversation.EncodeBody(saying("true"))
	require.NoError(t, err)
	event := sealed(body)
	event.Body = saying("false")
	content, err := stream.New("c", 0).Take(stream.NewChecker(frame.JSONWithBytes, false), event)
	require.NoError(t, err)
	require.Equal(t, chain.Verified, content)
	require.Equal(t, "true", event.GetBody().GetMessage().GetText())
}

// Bytes that this client cannot decode still verify. The program gets a body without an action.
func TestABodyThatCannotBeReadIsEmpty(t *testing.T) {
	event := sealed([]byte{0xff, 0xff})
	event.Body = saying("false")
	content, err := stream.New("c", 0).Take(stream.NewChecker(frame.JSONWithBytes, false), event)
	require.NoError(t, err)
	require.Equal(t, chain.Verified, content)
	require.NotNil(t, event.GetBody())
	require.Nil(t, event.GetBody().GetAction())
}

// JSON names the kinds that it knows and numbers all of them. The number is what was verified, also of a kind without a name.
func TestTheKindThatWasVerifiedIsPassedOn(t *testing.T) {
	event := sealed([]byte{0xff, 0xff})
	event.Kind, event.KindNumber = conversationv1.EventKind_EVENT_KIND_UNSPECIFIED, uint32(event.GetKind())
	_, err := stream.New("c", 0).Take(stream.NewChecker(frame.JSONWithBytes, false), event)
	require.NoError(t, err)
	require.Equal(t, conversationv1.EventKind_EVENT_KIND_MESSAGE, event.GetKind())
}

// The client cannot check an event of a newer format. It passes the unchanged body to the program, marked as not checked.
func TestABodyThatCannotBeCheckedStays(t *testing.T) {
	body, err := conversation.EncodeBody(saying("perhaps"))
	require.NoError(t, err)
	event := sealed(body)
	event.Format, event.Body, event.BodyBytes = chain.Format+1, saying("perhaps"), nil
	content, err := stream.New("c", 0).Take(stream.NewChecker(frame.JSON, false), event)
	require.NoError(t, err)
	require.Equal(t, chain.NotChecked, content)
	require.Equal(t, "perhaps", event.GetBody().GetMessage().GetText())
}

// In the binary encoding the body itself is verified, and stays.
func TestABinaryBodyStays(t *testing.T) {
	log := logtest.New("c", 1)
	event := log.Event(1)
	want := event.GetBody()
	_, err := stream.New("c", 0).Take(checker, event)
	require.NoError(t, err)
	require.Same(t, want, event.GetBody())
}

// An event whose content was erased has no body, even if the server sends a decoded body.
func TestErasedContentHasNoBody(t *testing.T) {
	log := logtest.New("c", 1)
	log.Erase(1)
	event := log.Event(1)
	event.Body = &conversationv1.Body{}
	content, err := stream.New("c", 0).Take(stream.NewChecker(frame.JSONWithBytes, false), event)
	require.NoError(t, err)
	require.Equal(t, chain.Erased, content)
	require.Nil(t, event.GetBody())
}

// Without verification, an event counts as erased if it has neither body nor salt.
func TestWhatIsNotCheckedIsErasedIfNothingIsLeft(t *testing.T) {
	for name, change := range map[string]func(*clientv1.Event){
		"its body is left": func(e *clientv1.Event) { e.Salt = nil },
		"its salt is left": func(e *clientv1.Event) { e.Body = nil },
	} {
		event := logtest.New("c", 1).Event(1)
		change(event)
		content, err := stream.New("c", 0).Take(stream.NewChecker(frame.Proto, true), event)
		require.NoError(t, err, name)
		require.Equal(t, chain.NotChecked, content, name)
	}
}
