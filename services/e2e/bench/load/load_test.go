package load

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/frame"
)

const conversationID = "g0123456789abcdefghijklmnop"

func line(f *clientv1.ServerFrame) []byte {
	return bytes.TrimSuffix(frame.AppendServer(nil, frame.JSON, f), []byte("\n"))
}

func event(seq uint64, text string) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: &clientv1.Event{
		ConversationId: conversationID, Seq: seq, TimeMs: 1732000000000, Sender: "u1", CommandId: "0193",
		Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE, PrevHash: make([]byte, 32), Hash: make([]byte, 32),
		Body: &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}},
	}}}
}

func TestLinesAreToldApartAsTheGatewayWritesThem(t *testing.T) {
	what, id, body := classify(line(event(42, "17 and more")))
	require.Equal(t, kindEvent, what)
	require.Zero(t, id)
	conversation, seq, ok := position(body)
	require.True(t, ok)
	require.Equal(t, conversationID, string(conversation))
	require.EqualValues(t, 42, seq)
	require.EqualValues(t, 17, SentAt(body))

	what, id, body = classify(line(&clientv1.ServerFrame{Id: 1<<63 + 5, Message: &clientv1.ServerFrame_Outcome{
		Outcome: &conversationv1.Outcome{ConversationId: conversationID, CommandId: "0193", Seq: 7},
	}}))
	require.Equal(t, kindOutcome, what)
	require.Equal(t, uint64(1<<63+5), id)
	require.EqualValues(t, 7, seqOf(body))
	_, _, body = classify(line(&clientv1.ServerFrame{Id: 5, Message: &clientv1.ServerFrame_Outcome{
		Outcome: &conversationv1.Outcome{ConversationId: conversationID, Error: &conversationv1.Error{Message: `"seq":"7"`}},
	}}))
	require.Zero(t, seqOf(body))

	what, id, body = classify(line(&clientv1.ServerFrame{Id: 1, Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{
		ConnectionId: "c", Conversations: []*clientv1.Conversation{{ConversationId: conversationID, Head: 99}},
	}}}))
	require.Equal(t, kindConnected, what)
	require.EqualValues(t, 1, id)
	require.EqualValues(t, 99, headOf(body))

	_, _, body = classify(line(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Receipt{Receipt: &conversationv1.Receipt{
		ConversationId: conversationID, Members: 7, Delivered: []*conversationv1.Step{{Seq: 12, Members: 3}, {Seq: 9, Members: 5}},
	}}}))
	delivered, members := deliveredOf(body)
	require.EqualValues(t, 12, delivered)
	require.Equal(t, 3, members)
	_, members = deliveredOf([]byte(`"members":7}`))
	require.Zero(t, members)

	for want, f := range map[kind]*clientv1.ServerFrame{
		kindReceipt:   {Message: &clientv1.ServerFrame_Receipt{Receipt: &conversationv1.Receipt{}}},
		kindHeartbeat: {Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: &clientv1.Heartbeat{}}},
		kindError:     {Id: 3, Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{}}},
		kindHidden:    {Message: &clientv1.ServerFrame_Hidden{Hidden: &clientv1.Hidden{}}},
		kindDetached:  {Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{}}},
		kindGoAway:    {Message: &clientv1.ServerFrame_GoAway{GoAway: &clientv1.GoAway{}}},
		kindOther:     {Id: 9, Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{}}},
	} {
		what, _, _ := classify(line(f))
		require.Equal(t, want, what, "%s", line(f))
	}
}

func TestNonsenseIsNoEvent(t *testing.T) {
	for _, text := range []string{"", "{", "x", `{"id":"`, `{"id":"5`, `{"id":"5","eve`, `{"event":{`, `{"event":{"conversationId":"`, `{"event":{"conversationId":"g","seq":"x`} {
		what, _, body := classify([]byte(text))
		if what == kindEvent {
			_, _, ok := position(body)
			require.False(t, ok, text)
		}
	}
	require.Zero(t, SentAt([]byte(`"text":"`)))
}

func TestFramesAreMaskedAsAServerUndoesIt(t *testing.T) {
	for _, size := range []int{0, 1, 7, 8, 9, 125, 126, 300, 0xffff, 0x10000} {
		payload := bytes.Repeat([]byte("abcdefghi"), size/9+1)[:size]
		framed := appendMasked(nil, opText, [4]byte{1, 2, 3, 4}, payload)
		head := len(framed) - size
		require.Equal(t, byte(0x81), framed[0])
		require.Equal(t, []byte{1, 2, 3, 4}, framed[head-4:head])
		unmasked := framed[head:]
		for i := range unmasked {
			unmasked[i] ^= byte(i%4 + 1)
		}
		require.True(t, bytes.Equal(payload, unmasked), "size %d", size)
	}
}

// unmasked makes a frame as a server does.
func unmasked(payload []byte) []byte {
	framed := appendMasked(nil, websocket.TextMessage, [4]byte{}, payload)
	head := len(framed) - len(payload)
	framed[1] &^= masked
	return append(framed[:head-4], payload...)
}

func TestFramesAreFoundHoweverTheyAreCut(t *testing.T) {
	var stream []byte
	var want []string
	for _, size := range []int{0, 5, 125, 126, 1000, 70_000} {
		payload := strings.Repeat("x", size)
		want = append(want, payload)
		stream = append(stream, unmasked([]byte(payload))...)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		var got []string
		var carry []byte
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(3000))
			carry = append(carry, rest[:n]...)
			rest = rest[n:]
			for {
				_, payload, after, whole, err := nextFrame(carry)
				require.NoError(t, err)
				if !whole {
					break
				}
				got = append(got, string(payload))
				carry = after
			}
		}
		require.Equal(t, want, got)
		require.Empty(t, carry)
	}
	for _, wrong := range [][]byte{{0x01, 0x00}, {0x81, 0x85, 1, 2, 3, 4}, {0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255}} {
		_, _, _, whole, err := nextFrame(wrong)
		require.ErrorIs(t, err, errFraming)
		require.False(t, whole)
	}
}

func TestTheHandshakeIsReadHoweverItIsCut(t *testing.T) {
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nrest")
	for n := range len(answer) - len("rest") {
		_, whole, err := upgraded(answer[:n])
		require.NoError(t, err)
		require.False(t, whole)
	}
	rest, whole, err := upgraded(answer)
	require.NoError(t, err)
	require.True(t, whole)
	require.Equal(t, "rest", string(rest))
	_, _, err = upgraded([]byte("HTTP/1.1 503 Service Unavailable\r\n\r\nthe gateway is being stopped"))
	require.ErrorIs(t, err, errUnavailable)
	_, _, err = upgraded([]byte("HTTP/1.1 429 Too Many Requests\r\n\r\ntoo many"))
	require.ErrorContains(t, err, "429 Too Many Requests: too many")
}
