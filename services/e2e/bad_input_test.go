package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/services/standalone"
)

// canary is part of every body and token that must not be logged.
const canary = "c4n4ry"

// TestBadFramesAreRefusedByField sends frames that no correct client sends. The answer names the field, and the connection
// stays open.
func TestBadFramesAreRefusedByField(t *testing.T) {
	s := start(t, nil)
	ann := s.login("ann", frame.JSON)
	id := ann.ask(submit("", direct())).GetOutcome().GetConversationId()
	const cmd = "0192f3c0-0000-7000-8000-000000000001"
	in := func(conversationID, commandID, body string) string {
		return fmt.Sprintf(`{"id":"7","submit":{"conversationId":%q,"commandId":%q,"body":%s}}`, conversationID, commandID, body)
	}
	message := func(text string) string {
		quoted, err := json.Marshal(text)
		require.NoError(t, err)
		return fmt.Sprintf(`{"message":{"text":%s}}`, quoted)
	}
	for name, c := range map[string]struct{ frame, field string }{
		"not JSON":               {`hello ` + canary, ""},
		"half an object":         {`{"id":"7","submit":{`, "submit"},
		"an array":               {`[1,2,3]`, ""},
		"deep JSON":              {strings.Repeat(`{"submit":`, 1000) + strings.Repeat("}", 1000), "-"},
		"unknown field":          {`{"id":"7","submit":{"seq":"9"}}`, "-"},
		"a sender of one's own":  {`{"id":"7","submit":{"sender":"bob","conversationId":"` + id + `"}}`, "-"},
		"a time of one's own":    {`{"id":"7","submit":{"timeMs":"1"}}`, "-"},
		"duplicate keys":         {`{"id":"7","id":"8","pong":{}}`, "-"},
		"wrong type":             {`{"id":"7","read":{"conversationId":5}}`, "read.conversation_id"},
		"two requests":           {`{"id":"7","pong":{},"ack":{}}`, "-"},
		"no request":             {`{"id":"7"}`, "-"},
		"no command id":          {in(id, "", message("x")), "submit.command_id"},
		"command id not v7":      {in(id, "0192f3c0-0000-4000-8000-000000000001", message("x")), "submit.command_id"},
		"command id with break":  {in(id, cmd+"\n", message("x")), "submit.command_id"},
		"wildcard conversation":  {in("*", cmd, message("x")), "submit.conversation_id"},
		"tail conversation":      {in(">", cmd, message("x")), "submit.conversation_id"},
		"dotted conversation":    {in("d.0123456789abcdefghijklmn", cmd, message("x")), "submit.conversation_id"},
		"long conversation":      {in(strings.Repeat("d", 5000), cmd, message("x")), "submit.conversation_id"},
		"long text":              {in(id, cmd, message(strings.Repeat("x", protocol.MaxTextBytes+1))), "submit.body.message.text"},
		"text with NUL":          {in(id, cmd, message(canary+"\x00")), "submit.body.message.text"},
		"empty text":             {in(id, cmd, message("")), "submit.body.message.text"},
		"no body":                {in(id, cmd, `{}`), "submit.body"},
		"create with an id":      {in(id, cmd, `{"create":{"kind":"KIND_GROUP"}}`), "submit.conversation_id"},
		"channel":                {in("", cmd, `{"create":{"kind":"KIND_CHANNEL"}}`), "submit.body.create.kind"},
		"member with a dot":      {in("", cmd, `{"create":{"kind":"KIND_GROUP","members":["a.b"]}}`), "submit.body.create.members[0]"},
		"read limit":             {`{"id":"7","read":{"conversationId":"` + id + `","limit":501}}`, "read.limit"},
		"read both ways":         {`{"id":"7","read":{"conversationId":"` + id + `","after":"1","before":"5"}}`, "read.after"},
		"list after nonsense":    {`{"id":"7","listConversations":{"after":"../x"}}`, "list_conversations.after"},
		"members after nonsense": {`{"id":"7","listMembers":{"conversationId":"` + id + `","after":"a b"}}`, "list_members.after"},
		"ack of the future":      {`{"id":"7","ack":{"positions":[{"conversationId":"` + id + `","delivered":"99"}]}}`, "ack.positions[0]"},
		"a token of another":     {`{"id":"7","refresh":{"token":"` + token(t, "bob") + `"}}`, "refresh.token"},
		"a forged token":         {`{"id":"7","refresh":{"token":"` + canary + `"}}`, "refresh.token"},
		"a second connect":       {`{"id":"7","connect":{"token":"` + token(t, "ann") + `","deviceId":"x"}}`, "connect"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.login("ann", frame.JSON)
			r.t = t
			r.sendText(c.frame)
			refused := r.until(func(f *clientv1.ServerFrame) bool { return f.GetError() != nil })
			if c.field != "-" {
				require.Equal(t, c.field, refused.GetError().GetField(), "%v", refused)
			}
			require.NotEmpty(t, refused.GetError().GetMessage())
			require.NotContains(t, refused.GetError().GetMessage(), canary)
			// The connection still works.
			require.NotZero(t, r.ask(submit(id, text("still here"))).GetOutcome().GetSeq())
		})
	}
	require.NotContains(t, s.logs.String(), canary)
	require.NotContains(t, s.logs.String(), "eyJ", "no part of a token")
	require.NotContains(t, s.logs.String(), "still here", "no part of a message")
	require.NotContains(t, s.logs.String(), "panic")
}

// TestBadConnectionsAreClosedWithTheirCode checks what closes a connection, and with which code.
func TestBadConnectionsAreClosedWithTheirCode(t *testing.T) {
	s := start(t, func(cfg *standalone.Config) { cfg.Gateway.FrameRate = 5 })
	connect := func(token string) *clientv1.ClientFrame {
		return &clientv1.ClientFrame{Id: 1, Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: token, DeviceId: "x"}}}
	}
	mint := func(ttl time.Duration) string {
		signed, err := auth.Mint([]byte(secret), "ann", time.Hour, time.Now().Add(ttl-time.Hour), "", "")
		require.NoError(t, err)
		return signed
	}
	other, err := auth.Mint([]byte(strings.Repeat("x", 32)), "ann", time.Hour, time.Now(), "", "")
	require.NoError(t, err)
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"ann"}`)) + "."
	for name, c := range map[string]struct {
		do   func(r *raw)
		code errcode.CloseCode
	}{
		"a frame before connect":  {func(r *raw) { r.send(submit("", direct())) }, errcode.CloseProtocol},
		"nonsense before connect": {func(r *raw) { r.sendText("{") }, errcode.CloseProtocol},
		"no token":                {func(r *raw) { r.send(connect("")) }, errcode.CloseUnauthenticated},
		"a token of another key":  {func(r *raw) { r.send(connect(other)) }, errcode.CloseUnauthenticated},
		"an unsigned token":       {func(r *raw) { r.send(connect(unsigned)) }, errcode.CloseUnauthenticated},
		"an expired token":        {func(r *raw) { r.send(connect(mint(-time.Minute))) }, errcode.CloseTokenExpired},
		"a bad device id": {func(r *raw) {
			f := connect(token(t, "ann"))
			f.GetConnect().DeviceId = "a.b"
			r.send(f)
		}, errcode.CloseProtocol},
		"an oversized message before connect": {func(r *raw) { r.sendText(strings.Repeat(" ", protocol.MaxConnectBytes+1)) }, errcode.CloseTooLarge},
		"an oversized message": {func(r *raw) {
			r.connect("ann")
			r.sendText(strings.Repeat(" ", protocol.MaxFrameBytes+1))
		}, errcode.CloseTooLarge},
		"the wrong kind of message": {func(r *raw) {
			require.NoError(t, r.ws.WriteMessage(websocket.BinaryMessage, []byte("{}")))
		}, errcode.CloseProtocol},
		"a flood": {func(r *raw) {
			r.ask(connect(token(t, "ann")))
			for range 300 {
				r.send(&clientv1.ClientFrame{Id: 9, Request: &clientv1.ClientFrame_ListConversations{ListConversations: &clientv1.ListConversations{}}})
			}
		}, errcode.CloseFlood},
		"nothing but nonsense": {func(r *raw) {
			r.ask(connect(token(t, "ann")))
			for range 10 {
				r.sendText("nonsense")
			}
		}, errcode.CloseProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.dial(frame.JSON)
			r.t = t
			c.do(r)
			require.Equal(t, c.code, r.closed())
		})
	}
	require.NotContains(t, s.logs.String(), "eyJ", "no part of a token")
}

func TestAFragmentedMessageIsOneMessage(t *testing.T) {
	s := start(t, nil)
	r := s.login("ann", frame.JSON)
	w, err := r.ws.NextWriter(websocket.TextMessage)
	require.NoError(t, err)
	for _, part := range []string{`{"id":"77",`, `"listConversations"`, `:{}}`} {
		_, err := w.Write([]byte(part + strings.Repeat(" ", 5000))) // larger than the write buffer: a separate frame
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	r.until(func(f *clientv1.ServerFrame) bool { return f.GetId() == 77 && f.GetConversations() != nil })
}

func TestSeveralFramesInOneMessageAreAnsweredInOrder(t *testing.T) {
	s := start(t, nil)
	r := s.login("ann", frame.Proto)
	id := r.ask(submit("", direct())).GetOutcome().GetConversationId()
	var data []byte
	for i := range 20 {
		f := submit(id, text("m"))
		f.Id = uint64(100 + i)
		data = frame.AppendClient(data, frame.Proto, f)
	}
	r.sendText(string(data))
	for i := range 20 {
		f := r.until(func(f *clientv1.ServerFrame) bool { return f.GetOutcome() != nil })
		require.Equal(t, uint64(100+i), f.GetId())
		require.Equal(t, uint64(2+i), f.GetOutcome().GetSeq(), "a sender's order is kept")
	}
}

// TestUnknownAndForeignConversationsLookTheSame keeps ids from being probed.
func TestUnknownAndForeignConversationsLookTheSame(t *testing.T) {
	s := start(t, nil)
	id := s.login("ann", frame.JSON).ask(submit("", group("bob"))).GetOutcome().GetConversationId()
	eve := s.login("eve", frame.JSON)
	foreign := eve.ask(submit(id, text("x"))).GetOutcome().GetError()
	unknown := eve.ask(submit(string(conversation.GroupID("x", "y")), text("x"))).GetOutcome().GetError()
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, foreign.GetCode())
	require.Equal(t, foreign.GetMessage(), unknown.GetMessage())
	require.Equal(t, foreign.GetCode(), unknown.GetCode())

	probe := s.login("eve", frame.JSON, &clientv1.Position{ConversationId: id, Seq: 1})
	page := probe.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListMembers{ListMembers: &clientv1.ListMembers{ConversationId: id}}})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, page.GetError().GetCode())
}

func TestHandshakesAreRefusedWithAReason(t *testing.T) {
	s := start(t, func(cfg *standalone.Config) {
		cfg.Gateway.AllowedOrigins = []string{"https://chat.example.com"}
		cfg.Gateway.MaxConnectionsPerIP = 3
	})
	dial := func(origin string, subprotocols ...string) int {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		dialer := websocket.Dialer{Subprotocols: subprotocols}
		ws, response, err := dialer.DialContext(t.Context(), s.url(), header)
		if err == nil {
			t.Cleanup(func() { _ = ws.Close() })
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode
	}
	json := frame.JSON.Subprotocol()
	for name, c := range map[string]struct {
		origin       string
		subprotocols []string
		status       int
	}{
		"a foreign page":        {"https://evil.example.com", []string{json}, http.StatusForbidden},
		"a listed page":         {"https://chat.example.com", []string{json}, http.StatusSwitchingProtocols},
		"a page of the gateway": {"http://" + s.s.Addr().String(), []string{json}, http.StatusSwitchingProtocols},
		"no subprotocol":        {"", nil, http.StatusBadRequest},
		"another subprotocol":   {"", []string{"mqtt"}, http.StatusBadRequest},
	} {
		status := dial(c.origin, c.subprotocols...)
		require.Equal(t, c.status, status, name)
	}
	status := dial("", json)
	require.Equal(t, http.StatusSwitchingProtocols, status)
	status = dial("", json)
	require.Equal(t, http.StatusTooManyRequests, status, "the fourth connection of this address")
}
