package source_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/source"
)

var group = conversation.GroupID("ann", ids.Command(deliverytest.CommandID(1)))

// decode decodes a command as it comes from the stream.
func decode(t *testing.T, c *brokerv1.Command) source.Message {
	t.Helper()
	payload, err := c.MarshalVT()
	require.NoError(t, err)
	return source.Decode(3, 5_000_000, payload)
}

// A command is decoded with its body and with what it refers to.
func TestDecode(t *testing.T) {
	reply := deliverytest.Text("yes")
	reply.GetMessage().ReplyTo = 7
	c := deliverytest.Command(string(group), "ann", 2, reply)
	e := decode(t, c)
	require.EqualValues(t, 3, e.Sequence)
	require.EqualValues(t, 5_000_000, e.TimeNs)
	require.EqualValues(t, 5, e.TimeMs())
	require.True(t, proto.Equal(c, e.Command))
	require.True(t, proto.Equal(reply, e.Body))
	require.Equal(t, conversation.Needs("ann", reply), e.Needs)
	require.NotEmpty(t, e.Needs)
	payload, err := c.MarshalVT()
	require.NoError(t, err)
	require.Equal(t, payload, e.Payload)
	require.False(t, e.TooNew)
	require.Empty(t, decode(t, deliverytest.Command(string(group), "ann", 2, deliverytest.Text("x"))).Needs)
}

// A payload that is no command keeps its bytes for the dead letter.
func TestDecodeWhatIsNoCommand(t *testing.T) {
	for _, payload := range [][]byte{nil, {}, {0xff}, []byte("not a command")} {
		e := source.Decode(3, 5, payload)
		require.Nil(t, e.Command)
		require.NotNil(t, e.Body)
		require.Equal(t, payload, e.Payload)
		require.False(t, e.TooNew)
		require.Zero(t, e.Skew())
		require.False(t, e.Late())
		require.False(t, source.KeyOf(e.Command).Committable())
	}
}

// A command whose body cannot be decoded, or has no action, has an empty body: it is refused.
func TestDecodeABadBody(t *testing.T) {
	for name, body := range map[string][]byte{"none": nil, "garbage": {0xff}, "cut off": deliverytest.Command("", "ann", 1, deliverytest.Text("hello")).GetBody()[:4]} {
		c := deliverytest.Command(string(group), "ann", 2, deliverytest.Text("x"))
		c.Body = body
		e := decode(t, c)
		require.NotNil(t, e.Command, name)
		require.Nil(t, e.Body.GetAction(), name)
		require.Empty(t, e.Needs, name)
		require.False(t, e.TooNew, name)
	}
}

// A kind or a level that this build does not know is marked, and the body is not looked at.
func TestDecodeOfANewerVersion(t *testing.T) {
	kind := deliverytest.Command(string(group), "ann", 2, deliverytest.Text("x"))
	kind.Body = protowire.AppendBytes(protowire.AppendTag(nil, 700, protowire.BytesType), []byte("new"))
	level := deliverytest.Command(string(group), "ann", 2, deliverytest.Text("x"))
	level.Level = uint32(conversation.MaxLevel()) + 1
	for name, c := range map[string]*brokerv1.Command{"kind": kind, "level": level} {
		e := decode(t, c)
		require.True(t, e.TooNew, name)
		require.Nil(t, e.Body.GetAction(), name)
		require.Equal(t, c.GetBody(), e.Command.GetBody(), name)
	}
}

// Fields that this version does not know stay in the body's bytes.
func TestUnknownFieldsAreKept(t *testing.T) {
	c := deliverytest.Command(string(group), "ann", 2, deliverytest.Text("x"))
	c.Body = protowire.AppendVarint(protowire.AppendTag(c.GetBody(), 1999, protowire.VarintType), 1)
	e := decode(t, c)
	require.Equal(t, c.GetBody(), e.Command.GetBody())
	require.Equal(t, "x", e.Body.GetMessage().GetText())
}

// Skew is stream time minus admission time; late is what the gateway had given up by then.
func TestTimes(t *testing.T) {
	at := func(admitted, notAfter int64) source.Message {
		return source.Message{TimeNs: 10_000 * 1e6, Command: &brokerv1.Command{AdmittedMs: admitted, NotAfterMs: notAfter}}
	}
	for _, c := range []struct {
		message source.Message
		skew    time.Duration
		late    bool
	}{
		{at(0, 0), 0, false},
		{at(9_000, 10_000), time.Second, false},
		{at(11_000, 9_999), -time.Second, true},
		{at(10_000, 10_001), 0, false},
	} {
		require.Equal(t, c.skew, c.message.Skew())
		require.Equal(t, c.late, c.message.Late())
	}
}

// The trace context comes from the header, under either spelling, if it is one.
func TestTraceparent(t *testing.T) {
	good := "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01"
	for name, c := range map[string]struct {
		header nats.Header
		want   string
	}{
		"none":             {nil, ""},
		"lower case":       {nats.Header{"traceparent": {good}}, good},
		"capital":          {nats.Header{"Traceparent": {good}}, good},
		"too short":        {nats.Header{"traceparent": {good[1:]}}, ""},
		"too long":         {nats.Header{"traceparent": {good + "0"}}, ""},
		"empty":            {nats.Header{"traceparent": {}}, ""},
		"a bad one before": {nats.Header{"traceparent": {""}, "Traceparent": {good}}, good},
	} {
		e := source.FromStream(4, "in.0", time.Unix(0, 77), c.header, []byte{0xff})
		require.Equal(t, c.want, e.Traceparent, name)
		require.EqualValues(t, 4, e.Sequence)
		require.EqualValues(t, 77, e.TimeNs)
		require.Equal(t, []byte{0xff}, e.Payload)
	}
}

// A command of an internal service is taken only from the subject to which no gateway can publish.
func TestAServerCommandFromAGatewayIsForged(t *testing.T) {
	for _, c := range []struct {
		sender, subject string
		forged          bool
	}{
		{"@server", broker.CommandSubject(3), true},
		{"@server", broker.ServerSubject(3), false},
		{"ann", broker.CommandSubject(3), false},
		{"ann", broker.ServerSubject(3), false},
	} {
		command := deliverytest.Command(string(group), c.sender, 2, deliverytest.Text("x"))
		payload, err := command.MarshalVT()
		require.NoError(t, err)
		require.Equal(t, c.forged, source.FromStream(4, c.subject, time.Unix(0, 77), nil, payload).Forged, "%s from %s", c.subject, c.sender)
	}
}

// The key of a command is that of its event and of its row in the store.
func TestKeys(t *testing.T) {
	c := deliverytest.Command(string(group), "ann", 2, deliverytest.Text("x"))
	key := source.KeyOf(c)
	require.Equal(t, source.CommandKey{Conversation: group, Sender: "ann", Command: ids.Command(deliverytest.CommandID(2))}, key)
	require.Equal(t, key, source.KeyOfEvent(&conversationv1.Event{ConversationId: string(group), Sender: "ann", CommandId: deliverytest.CommandID(2)}))
	require.Equal(t, key, source.KeyOfProto(key.Proto()))
	require.True(t, key.Committable())
	for _, change := range []func(*source.CommandKey){
		func(k *source.CommandKey) { k.Conversation = "live.>" },
		func(k *source.CommandKey) { k.Sender = "a.b" },
		func(k *source.CommandKey) { k.Command = "1" },
	} {
		bad := key
		change(&bad)
		require.False(t, bad.Committable(), bad)
	}
	server := key
	server.Sender = conversation.ServerUser
	require.True(t, server.Committable(), "the server sends commands, too")
}
