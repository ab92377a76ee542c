package readme

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

// peer is a client that sends JSON frames as they are written.
type peer struct {
	t    *testing.T
	ws   *websocket.Conn
	seen []string
}

// sign gets a token by the development sign-in, as the page of the server does.
func (s *server) sign(t *testing.T, user string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"user": user, "code": s.code})
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(ended(t), http.MethodPost, "http://"+s.clients+"/dev/token", bytes.NewReader(body))
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	var answer struct {
		Token string `json:"token"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&answer))
	require.Equal(t, http.StatusOK, response.StatusCode)
	return answer.Token
}

func (s *server) dial(t *testing.T) *peer {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"runnel.v1.json"}}
	ws, response, err := dialer.DialContext(ended(t), "ws://"+s.clients+"/v1/ws", nil)
	require.NoError(t, err)
	_ = response.Body.Close()
	t.Cleanup(func() { _ = ws.Close() })
	require.NoError(t, ws.SetReadDeadline(time.Now().Add(patience)))
	return &peer{t: t, ws: ws}
}

func (p *peer) send(frame string) {
	p.t.Helper()
	require.NoError(p.t, p.ws.WriteMessage(websocket.TextMessage, []byte(frame)))
}

// expect reads frames until one has the form of want, and forgets it. Pushes may come in between, and before answers or after them.
func (p *peer) expect(want string) error {
	var form map[string]any
	if err := json.Unmarshal([]byte(want), &form); err != nil {
		return fmt.Errorf("%s: %w", want, err)
	}
	for {
		for i, frame := range p.seen {
			var got map[string]any
			if err := json.Unmarshal([]byte(frame), &got); err != nil {
				return fmt.Errorf("%s: %w", frame, err)
			}
			switch {
			case like(form, got):
				p.seen = slices.Delete(p.seen, i, i+1)
				return nil
			case got["error"] != nil, got["id"] != nil && got["id"] == form["id"]:
				return fmt.Errorf("the server did not answer %s, but %s", want, frame)
			}
		}
		_, message, err := p.ws.ReadMessage()
		if err != nil {
			return fmt.Errorf("the server did not answer %s, but\n%s", want, strings.Join(p.seen, "\n"))
		}
		for line := range strings.Lines(string(message)) {
			p.seen = append(p.seen, strings.TrimSpace(line))
		}
	}
}

// like reports whether got has everything that form has. In strings … stands for any characters.
func like(form, got any) bool {
	switch form := form.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return false
		}
		for key, value := range form {
			if there, found := object[key]; !found || !like(value, there) {
				return false
			}
		}
		return true
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) < len(form) {
			return false
		}
		for i := range form {
			if !like(form[i], list[i]) {
				return false
			}
		}
		return true
	case string:
		text, ok := got.(string)
		pattern := strings.ReplaceAll(regexp.QuoteMeta(form), "…", ".*")
		return ok && regexp.MustCompile("^"+pattern+"$").MatchString(text)
	default:
		return form == got
	}
}

// TestJSONFrames has the conversation of README.md with a server: it sends what the page sends, and gets what the page gets.
func TestJSONFrames(t *testing.T) {
	s := startServer(t, build(t))
	frames := fences(read(t, "README.md"), "json")
	require.NotEmpty(t, frames)
	require.NoError(t, s.converse(t, frames[0].text))
	ids := regexp.MustCompile(`"commandId":"([^"]+)"`).FindAllStringSubmatch(frames[0].text, -1)
	require.NotEmpty(t, ids)
	for _, id := range ids {
		parsed, err := uuid.Parse(id[1])
		require.NoError(t, err)
		require.EqualValues(t, 7, parsed.Version(), "a command id is a UUID of version 7")
	}

	// A field that does not exist is found, in either direction.
	require.ErrorContains(t, s.converse(t, strings.Replace(frames[0].text, `"members"`, `"memberz"`, 1)), `"field":"submit.body.create"`)
	require.ErrorContains(t, s.converse(t, strings.Replace(frames[0].text, `"connectionId"`, `"connectionID"`, 1)), "did not answer")
}

// converse has a conversation as alice. bob answers when the page has him answer.
func (s *server) converse(t *testing.T, frames string) error {
	t.Helper()
	alice, bob, conversation := s.dial(t), s.dial(t), ""
	bob.send(`{"id":"1","connect":{"token":"` + s.sign(t, "bob") + `","deviceId":"phone"}}`)
	require.NoError(t, bob.expect(`{"id":"1","connected":{}}`))
	for line := range strings.Lines(frames) {
		direction, frame, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch direction {
		case "→":
			require.True(t, json.Valid([]byte(frame)), frame)
			alice.send(strings.Replace(frame, `"eyJ…"`, `"`+s.sign(t, "alice")+`"`, 1))
			if match := regexp.MustCompile(`"conversationId":"([^"]+)"`).FindStringSubmatch(frame); match != nil {
				conversation = match[1]
			}
		case "←":
			if strings.HasPrefix(frame, `{"event":`) && strings.Contains(frame, `"sender":"bob"`) {
				bob.send(fmt.Sprintf(`{"id":"2","submit":{"conversationId":%q,"commandId":%q,"body":{"message":{"text":"hi"}}}}`, conversation, uuid.Must(uuid.NewV7())))
			}
			if err := alice.expect(frame); err != nil {
				return err
			}
		default:
			return fmt.Errorf("a line is neither sent nor received: %s", line)
		}
	}
	return nil
}
