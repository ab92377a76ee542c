package attack_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/gateway"
)

// client is a connected user.
type client struct {
	t     *target
	ws    *websocket.Conn
	codec frame.Codec
	next  uint64
	room  string
}

func trusting(t *testing.T, authority []byte) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(authority))
	return &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

func token(t *target, user string) string {
	t.Helper()
	signed, err := auth.Mint(t.secret, ids.User(user), time.Hour, time.Now(), "", "")
	require.NoError(t, err)
	return signed
}

// header is a PROXY header of version 1 that names an address.
func header(source string) string {
	family, server := "TCP4", "192.0.2.1"
	if strings.Contains(source, ":") {
		family, server = "TCP6", "2001:db8::1"
	}
	return fmt.Sprintf("PROXY %s %s %s 1234 443\r\n", family, source, server)
}

// dialer dials as an honest client does.
func (s *target) dialer() websocket.Dialer {
	return websocket.Dialer{
		Subprotocols: []string{frame.JSON.Subprotocol()}, TLSClientConfig: s.trust, HandshakeTimeout: patience,
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil && s.source != "" {
				_, err = conn.Write([]byte(header(s.source)))
			}
			return conn, err
		},
	}
}

// connect logs a user in, trying again as clients do.
func (s *target) connect(user string) *client {
	s.Helper()
	var c *client
	require.Eventually(s, func() bool {
		var err error
		if c, err = s.tryConnect(user); err != nil {
			s.Log("an honest client tries again:", err)
		}
		return err == nil
	}, patience, 50*time.Millisecond)
	return c
}

func (s *target) tryConnect(user string) (*client, error) { return s.tryConnectWith(user, frame.JSON) }

// connectWith is connect with another encoding.
func (s *target) connectWith(user string, codec frame.Codec) *client {
	s.Helper()
	c, err := s.tryConnectWith(user, codec)
	require.NoError(s, err)
	return c
}

func (s *target) tryConnectWith(user string, codec frame.Codec) (*client, error) {
	c, err := s.trySocket(codec)
	if err != nil {
		return nil, err
	}
	answer, err := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: token(s, user), DeviceId: "d"}}})
	if err == nil && answer.GetConnected() == nil {
		err = errors.New(answer.String())
	}
	return c, err
}

// socket opens a WebSocket that is not authenticated.
func (s *target) socket() *client {
	s.Helper()
	c, err := s.trySocket(frame.JSON)
	require.NoError(s, err)
	return c
}

func (s *target) trySocket(codec frame.Codec) (*client, error) {
	scheme := "ws"
	if s.trust != nil {
		scheme = "wss"
	}
	dialer := s.dialer()
	dialer.Subprotocols = []string{codec.Subprotocol()}
	ws, response, err := dialer.DialContext(s.Context(), scheme+"://"+s.address("gateway")+gateway.Path, nil)
	if err != nil {
		return nil, err
	}
	_ = response.Body.Close()
	s.Cleanup(func() { _ = ws.Close() })
	return &client{t: s, ws: ws, codec: codec}, nil
}

// ask sends a request, and returns its answer.
func (c *client) ask(f *clientv1.ClientFrame) (answer *clientv1.ServerFrame, err error) {
	c.next++
	f.Id = c.next
	kind := websocket.TextMessage
	if c.codec == frame.Proto {
		kind = websocket.BinaryMessage
	}
	if err := c.ws.WriteMessage(kind, frame.AppendClient(nil, c.codec, f)); err != nil {
		return nil, err
	}
	return c.answer(f.GetId())
}

// answer reads until a request is answered.
func (c *client) answer(id uint64) (answer *clientv1.ServerFrame, err error) {
	for answer == nil && err == nil {
		err = c.read(func(f *clientv1.ServerFrame) {
			if f.GetId() == id {
				answer = f
			}
		})
	}
	return answer, err
}

// read calls a function with each frame of the next message.
func (c *client) read(each func(f *clientv1.ServerFrame)) error {
	_ = c.ws.SetReadDeadline(time.Now().Add(patience))
	_, data, err := c.ws.ReadMessage()
	if err != nil {
		return err
	}
	return frame.DecodeServer(c.codec, data, func(f *clientv1.ServerFrame) error {
		each(f)
		return nil
	})
}

// say commits a message, in a conversation that the user has with bob, and returns its place.
func (c *client) say() (seq uint64) {
	c.t.Helper()
	if c.room == "" {
		c.room = c.do("", &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{"bob"},
		}}}).GetConversationId()
	}
	outcome := c.do(c.room, &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "hello"}}})
	require.Nil(c.t, outcome.GetError())
	require.NotZero(c.t, outcome.GetSeq())
	return outcome.GetSeq()
}

func (c *client) do(conversation string, body *conversationv1.Body) *conversationv1.Outcome {
	c.t.Helper()
	answer, err := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
		ConversationId: conversation, CommandId: uuid.Must(uuid.NewV7()).String(), Body: body,
	}}})
	require.NoError(c.t, err)
	require.NotNil(c.t, answer.GetOutcome(), "%v", answer)
	return answer.GetOutcome()
}

// refusal is do for a command that may be refused: it returns the error of its answer or of its outcome.
func (c *client) refusal(conversation string, body *conversationv1.Body) *conversationv1.Error {
	c.t.Helper()
	answer, err := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
		ConversationId: conversation, CommandId: uuid.Must(uuid.NewV7()).String(), Body: body,
	}}})
	require.NoError(c.t, err)
	if refused := answer.GetError(); refused != nil {
		return refused
	}
	require.NotNil(c.t, answer.GetOutcome(), "%v", answer)
	return answer.GetOutcome().GetError()
}

// masked is a text message as a client sends it. The mask is zero.
func masked(text string) string {
	return string(binary.BigEndian.AppendUint16([]byte{0x81, 0xfe}, uint16(len(text)))) + "\x00\x00\x00\x00" + text
}

func (c *client) leave() { _ = c.ws.Close() }
