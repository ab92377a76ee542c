package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// serveWebSocket accepts WebSocket connections on a real socket and answers each frame, until handle returns an error.
func serveWebSocket(subprotocols []string, handle func(*clientv1.ClientFrame) ([]*clientv1.ServerFrame, error)) (url string, stop func()) {
	server := httptest.NewServer(webSocketHandler(subprotocols, handle))
	return strings.Replace(server.URL, "http:", "ws:", 1), server.Close
}

func webSocketHandler(subprotocols []string, handle func(*clientv1.ClientFrame) ([]*clientv1.ServerFrame, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{Subprotocols: subprotocols}
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		codec, _ := frame.CodecFor(ws.Subprotocol())
		for {
			_, message, err := ws.ReadMessage()
			if err != nil {
				return
			}
			err = frame.DecodeClient(codec, message, func(f *clientv1.ClientFrame) error {
				if f.GetConnect().GetBodyBytes() {
					codec = codec.WithBytes()
				}
				answers, err := handle(f)
				var out []byte
				for _, answer := range answers {
					out = frame.AppendServer(out, codec, answer)
				}
				return errors.Join(ws.WriteMessage(codec.MessageType(), out), err)
			})
			if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
				_ = ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(closed.Code, closed.Text))
				return
			}
		}
	}
}

func TestOverTLSWithAnAuthorityOfOnesOwn(t *testing.T) {
	server := httptest.NewUnstartedServer(webSocketHandler([]string{"runnel.v1.proto"}, func(f *clientv1.ClientFrame) ([]*clientv1.ServerFrame, error) {
		return []*clientv1.ServerFrame{{Id: f.GetId(), Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{UserId: "alice"}}}}, nil
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // otherwise it logs that the client does not trust the server
	server.StartTLS()
	defer server.Close()
	authority := x509.NewCertPool()
	authority.AddCert(server.Certificate())
	run := func(trust *tls.Config) (*client.Client, *failures) {
		failed := &failures{came: make(chan struct{})}
		c, err := client.New(client.Config{
			URL: strings.Replace(server.URL, "https:", "wss:", 1), DeviceID: "phone", TLS: trust, Log: slog.New(failed),
			Token: func(context.Context) (string, error) { return "token", nil },
		})
		require.NoError(t, err)
		require.NoError(t, c.Start(t.Context()))
		return c, failed
	}
	trusting, _ := run(&tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS13})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, trusting.Ready(ctx))
	require.NoError(t, trusting.Close())

	stranger, failed := run(nil)
	<-failed.came
	require.Contains(t, failed.first, "certificate")
	require.NotEqual(t, client.Connected, stranger.State())
	require.NoError(t, stranger.Close())
}

// failures keeps the error of the first line of a log.
type failures struct {
	slog.Handler

	came  chan struct{}
	first string
}

func (*failures) Enabled(context.Context, slog.Level) bool { return true }

func (f *failures) Handle(_ context.Context, line slog.Record) error {
	line.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" && f.first == "" {
			f.first = a.Value.String()
			close(f.came)
		}
		return true
	})
	return nil
}

func TestOverARealSocket(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		// The message is larger than the buffers for reading and writing.
		long := strings.Repeat("hello ", 1300)
		h := newHistory(1)
		url, stop := serveWebSocket([]string{codec.Subprotocol()}, func(f *clientv1.ClientFrame) ([]*clientv1.ServerFrame, error) {
			switch {
			case f.GetConnect() != nil:
				return []*clientv1.ServerFrame{{Id: f.GetId(), Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{
					UserId: "alice", Conversations: []*clientv1.Conversation{h.info()},
				}}}}, nil
			case f.GetSubmit().GetBody().GetMessage() != nil:
				event, _ := h.apply("alice", f.GetSubmit().GetCommandId(), f.GetSubmit().GetBody())
				return []*clientv1.ServerFrame{commit(f, event.GetSeq()), h.push(event.GetSeq())}, nil
			case f.GetSubmit().GetBody().GetLeave() != nil:
				return nil, &websocket.CloseError{Code: int(errcode.CloseStayAway), Text: "enough"}
			}
			return nil, nil
		})
		defer stop()
		events := make(chan client.Event, 1)
		c, err := client.New(client.Config{
			URL: url, DeviceID: "phone", Codec: codec, Token: func(context.Context) (string, error) { return "token", nil },
			OnEvent: func(_ context.Context, event client.Event) { events <- event },
		})
		require.NoError(t, err)
		require.NoError(t, c.Start(t.Context()))
		outcome, err := c.Send(t.Context(), h.id, long)
		require.NoError(t, err)
		require.Equal(t, uint64(2), outcome.GetSeq())
		require.Equal(t, long, (<-events).GetBody().GetMessage().GetText())
		_, err = c.Leave(t.Context(), h.id)
		var closed *client.ClosedError
		require.ErrorAs(t, err, &closed)
		require.Equal(t, "enough", closed.Reason)
		require.ErrorAs(t, c.Close(), &closed)
	}
}

func TestAServerThatSpeaksSomethingElse(t *testing.T) {
	for _, subprotocols := range [][]string{nil, {"runnel.v2.proto"}} {
		url, stop := serveWebSocket(subprotocols, nil)
		defer stop()
		waiting := make(chan struct{}, 100)
		c, err := client.New(client.Config{
			URL: url, DeviceID: "phone", Token: func(context.Context) (string, error) { return "token", nil },
			OnState: func(state client.State) {
				if state == client.Waiting {
					waiting <- struct{}{}
				}
			},
		})
		require.NoError(t, err)
		require.NoError(t, c.Start(t.Context()))
		<-waiting
		require.NoError(t, c.Close())
		require.Zero(t, c.Stats().Connects)
	}
}

func BenchmarkReceiveEvents(b *testing.B) {
	for _, verify := range []bool{true, false} {
		name := map[bool]string{true: "verified", false: "unverified"}[verify]
		b.Run(name, func(b *testing.B) {
			g, h := newGateway(), newHistory(1)
			seen := make(chan struct{})
			c, err := client.New(client.Config{
				URL: "ws://gateway", DeviceID: "phone", Dial: g.dial, SkipVerify: !verify, Start: clientv1.Start_START_FIRST, MaxEvents: 1 << 30,
				Token: func(context.Context) (string, error) { return "token", nil },
				OnEvent: func(_ context.Context, event client.Event) {
					if event.GetSeq() == uint64(b.N) {
						close(seen)
					}
				},
			})
			require.NoError(b, err)
			h.grow(b.N - 1)
			var messages [][]byte
			for seq := range b.N {
				messages = append(messages, frame.AppendEvent(nil, frame.Proto, h.events[seq], ""))
			}
			require.NoError(b, c.Start(b.Context()))
			l := <-g.links
			l.send(&clientv1.ServerFrame{Id: 1, Message: &clientv1.ServerFrame_Connected{Connected: connected(h.info())}})
			require.NoError(b, c.Ready(b.Context()))
			b.ReportAllocs()
			b.ResetTimer()
			for _, message := range messages {
				l.toClient <- message
			}
			<-seen
			b.StopTimer()
			require.NoError(b, c.Close())
		})
	}
}
