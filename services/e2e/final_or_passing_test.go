package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/gateway"
)

// Each code of the reference has a row here that provokes it in a real installation, and the Go client must do what the reference
// says: stay away or reconnect after a close code, report a refusal or try again. A code without a row fails the test.

// wire is a connection of the Go client that a row can disturb.
type wire struct {
	ws     *websocket.Conn
	deaf   atomic.Pointer[chan struct{}] // while open, nothing is read; nil for never
	mute   atomic.Bool                   // what the client writes is dropped
	change func(*clientv1.ClientFrame) *clientv1.ClientFrame
	seen   func(*clientv1.ServerFrame)

	mu sync.Mutex // of writes
}

func (w *wire) ReadMessage() ([]byte, error) {
	if deaf := w.deaf.Load(); deaf != nil {
		<-*deaf
	}
	_, message, err := w.ws.ReadMessage()
	if err == nil {
		_ = frame.DecodeServer(frame.Proto, message, func(f *clientv1.ServerFrame) error { w.seen(f); return nil })
	}
	return message, err
}

func (w *wire) WriteMessage(message []byte) error {
	if w.mute.Load() {
		return nil
	}
	if w.change != nil {
		var changed []byte
		err := frame.DecodeClient(frame.Proto, message, func(f *clientv1.ClientFrame) error {
			changed = frame.AppendClient(changed, frame.Proto, w.change(f))
			return nil
		})
		if err != nil {
			return err
		}
		message = changed
	}
	return w.write(message)
}

// write sends a message beside those of the client.
func (w *wire) write(message []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ws.WriteMessage(websocket.BinaryMessage, message)
}

func (w *wire) Close() error { return w.ws.Close() }

// follower is a Go client and what happens to it.
type follower struct {
	*client.Client

	t     *testing.T
	log   *telemetrytest.Log
	dials atomic.Int32

	socket func(network, address string, socket syscall.RawConn) error // sets options of the client's sockets; may be nil

	mu    sync.Mutex
	wires []*wire
	codes map[conversationv1.ErrorCode]bool // that the server answered with
}

// follow starts a client of a user. disturb is called with each connection, counted from 1, before the client uses it; change may
// change the configuration. Both may be nil.
func follow(t *testing.T, url func(dial int) string, user string, change func(*client.Config), disturb func(dial int, w *wire)) *follower {
	t.Helper()
	return (&follower{t: t}).start(url, user, change, disturb)
}

func (f *follower) start(url func(dial int) string, user string, change func(*client.Config), disturb func(dial int, w *wire)) *follower {
	t := f.t
	t.Helper()
	f.log, f.codes = &telemetrytest.Log{}, map[conversationv1.ErrorCode]bool{}
	cfg := client.Config{
		URL: "ws://chosen.by.dial", DeviceID: "d", Codec: frame.Proto,
		Backoff: client.Backoff{Min: time.Millisecond, Max: 50 * time.Millisecond},
		Token:   func(context.Context) (string, error) { return token(t, user), nil },
		Log:     slog.New(slog.NewTextHandler(f.log, nil)),
		OnEvent: func(context.Context, client.Event) {},
	}
	cfg.Dial = func(ctx context.Context, _ string, header http.Header) (client.Conn, error) {
		n := int(f.dials.Add(1))
		dialer := websocket.Dialer{NetDialContext: (&net.Dialer{Control: f.socket}).DialContext}
		ws, response, err := dialer.DialContext(ctx, url(n), header)
		if err != nil {
			return nil, err
		}
		_ = response.Body.Close()
		w := &wire{ws: ws, seen: f.answered}
		if disturb != nil {
			disturb(n, w)
		}
		f.mu.Lock()
		f.wires = append(f.wires, w)
		f.mu.Unlock()
		return w, nil
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	f.Client, err = client.New(cfg)
	require.NoError(t, err)
	require.NoError(t, f.Start(t.Context()))
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (f *follower) answered(answer *clientv1.ServerFrame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.codes[answer.GetError().GetCode()] = true
	f.codes[answer.GetOutcome().GetError().GetCode()] = true
}

// connected waits for the connection, and returns it.
func (f *follower) connected() *wire {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	require.NoError(f.t, f.Ready(ctx))
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wires[len(f.wires)-1]
}

// inject writes frames into the client's connection. The gateway may close it meanwhile.
func (w *wire) inject(times int, f *clientv1.ClientFrame) {
	for range times {
		if w.write(frame.AppendClient(nil, frame.Proto, f)) != nil {
			return
		}
	}
}

// premises is where a row happens.
type premises struct {
	*house

	worker *clerk
	door   *door
	faults *faults
	id     string // a group of ann, bob and cem
}

// faults is a history service that fails on demand.
type faults struct {
	historyv1.HistoryServiceClient

	listing, reading atomic.Pointer[error] // what the next call of a kind returns
}

func (f *faults) ListConversations(
	ctx context.Context, in *historyv1.ListConversationsRequest, options ...grpc.CallOption,
) (*historyv1.ListConversationsResponse, error) {
	if err := f.listing.Swap(nil); err != nil {
		return nil, *err
	}
	return f.HistoryServiceClient.ListConversations(ctx, in, options...)
}

func (f *faults) ReadMessages(
	ctx context.Context, in *historyv1.ReadMessagesRequest, options ...grpc.CallOption,
) (*historyv1.ReadMessagesResponse, error) {
	if err := f.reading.Swap(nil); err != nil {
		return nil, *err
	}
	return f.HistoryServiceClient.ReadMessages(ctx, in, options...)
}

func openPremises(t *testing.T, change func(*gateway.Config)) *premises {
	t.Helper()
	return openPremisesWith(t, change, nil)
}

func openPremisesWith(t *testing.T, change func(*gateway.Config), equip func(*gateway.Deps)) *premises {
	t.Helper()
	p := &premises{house: newHouse(t)}
	p.faults = &faults{HistoryServiceClient: p.history}
	p.history = p.faults
	store := &poisoned{HistoryServiceClient: p.faults}
	p.worker = p.clerk(func(cfg *delivery.Config, deps *delivery.Deps) { cfg.MaxTries, deps.History = 1, store })
	p.door = p.doorWith(change, equip)
	p.ready(p.worker)
	p.id = p.newGroup("bob", "cem")
	return p
}

func urlOf(d *door) string { return "ws://" + d.Addr().String() + gateway.Path }

// bob starts a client of bob's at the door.
func (p *premises) bob(change func(*client.Config), disturb func(dial int, w *wire)) *follower {
	p.t.Helper()
	return follow(p.t, func(int) string { return urlOf(p.door) }, "bob", change, disturb)
}

// scripted starts a client of a server that closes the first connection with a code, for codes that gateways do not send.
func scripted(t *testing.T, code errcode.CloseCode) *follower {
	t.Helper()
	p := openPremises(t, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{Subprotocols: []string{frame.Proto.Subprotocol()}}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		_, _, _ = ws.ReadMessage()
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(int(code), ""), time.Now().Add(patience))
		_ = ws.Close()
	}))
	t.Cleanup(server.Close)
	return follow(t, func(dial int) string {
		if dial == 1 {
			return "ws" + strings.TrimPrefix(server.URL, "http")
		}
		return urlOf(p.door)
	}, "bob", nil, nil)
}

func (p *premises) disconnect(stayAway bool) *follower {
	f := p.bob(nil, nil)
	f.connected()
	_, err := p.worker.Disconnect(p.t.Context(), &adminv1.DisconnectRequest{UserId: "bob", StayAway: stayAway})
	require.NoError(p.t, err)
	return f
}

// tokens gives the client one token for its first connection and good ones afterwards.
func tokens(t *testing.T, first string) func(*client.Config) {
	t.Helper()
	var asked atomic.Int32
	return func(cfg *client.Config) {
		cfg.Token = func(context.Context) (string, error) {
			if asked.Add(1) == 1 {
				return first, nil
			}
			return token(t, "bob"), nil
		}
	}
}

func minted(t *testing.T, key string, at time.Time) string {
	t.Helper()
	signed, err := auth.Mint([]byte(key), "bob", time.Hour, at, "", "")
	require.NoError(t, err)
	return signed
}

// closeRows provoke each close code and return the client that it happens to.
//
//nolint:thelper // they are tests, not helpers
var closeRows = map[errcode.CloseCode]func(t *testing.T) *follower{
	errcode.CloseGoingAway: func(t *testing.T) *follower {
		p := openPremises(t, nil)
		second := p.house.door(nil)
		f := follow(t, func(dial int) string { return urlOf([]*door{p.door, second}[min(dial-1, 1)]) }, "bob", nil, nil)
		f.connected()
		p.door.stop()
		return f
	},
	errcode.CloseSlow: func(t *testing.T) *follower {
		p := openPremisesWith(t, slowly, func(d *gateway.Deps) { d.Listener = narrowListener(t) })
		deaf := make(chan struct{})
		f := (&follower{t: t, socket: narrow}).start(func(int) string { return urlOf(p.door) }, "bob", nil, nil)
		w := f.connected()
		w.deaf.Store(&deaf)
		w.mute.Store(true) // what it wrote while the gateway closes would cut off the rest
		large := strings.Repeat("x", 8000)
		for range 64 { // far more than narrow sockets and the queue hold
			p.say(p.id, text(large))
		}
		close(deaf)
		return f
	},
	errcode.CloseNoAck: func(t *testing.T) *follower {
		p := openPremises(t, func(cfg *gateway.Config) { cfg.AckTimeout, cfg.AckTries = 50*time.Millisecond, 1 })
		f := p.bob(nil, nil)
		f.connected().mute.Store(true)
		p.say(p.id, text("unacknowledged"))
		return f
	},
	errcode.CloseNoPong: func(t *testing.T) *follower {
		p := openPremises(t, func(cfg *gateway.Config) { cfg.Heartbeat = 2 * time.Second })
		f := p.bob(nil, nil)
		f.connected().mute.Store(true)
		return f
	},
	errcode.CloseDisconnected: func(t *testing.T) *follower { return openPremises(t, nil).disconnect(false) },
	errcode.CloseStayAway:     func(t *testing.T) *follower { return openPremises(t, nil).disconnect(true) },
	errcode.CloseOverloaded: func(t *testing.T) *follower {
		p := openPremises(t, func(cfg *gateway.Config) { cfg.MaxConnectionsPerUser = 1 })
		other := p.door.login(t, "bob")
		f := p.bob(nil, nil)
		f.hears(errcode.CloseOverloaded)
		require.NoError(t, other.ws.Close())
		return f
	},
	errcode.CloseTokenExpired: func(t *testing.T) *follower {
		return openPremises(t, nil).bob(tokens(t, minted(t, secret, time.Now().Add(-2*time.Hour))), nil)
	},
	errcode.CloseInternal: func(t *testing.T) *follower { return scripted(t, errcode.CloseInternal) },
	errcode.CloseUnavailable: func(t *testing.T) *follower {
		p := openPremises(t, nil)
		away := status.Error(codes.Unavailable, "away")
		p.faults.listing.Store(&away)
		return p.bob(nil, nil)
	},
	errcode.CloseConnectTimeout: func(t *testing.T) *follower {
		p := openPremises(t, func(cfg *gateway.Config) { cfg.ConnectTimeout = time.Second })
		return p.bob(nil, func(dial int, w *wire) { w.mute.Store(dial == 1) })
	},
	errcode.CloseAhead: func(t *testing.T) *follower {
		p := openPremises(t, nil)
		f := p.bob(nil, nil)
		w := f.connected()
		w.inject(300, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: &clientv1.Ack{
			Positions: []*clientv1.AckPosition{{ConversationId: p.id, Delivered: 1000}},
		}}})
		return f
	},
	errcode.CloseProtocol: func(t *testing.T) *follower {
		return openPremises(t, nil).bob(nil, func(_ int, w *wire) { require.NoError(t, w.write([]byte("nonsense"))) })
	},
	errcode.CloseUnauthenticated: func(t *testing.T) *follower {
		return openPremises(t, nil).bob(tokens(t, minted(t, strings.Repeat("x", 32), time.Now())), nil)
	},
	errcode.CloseTooLarge: func(t *testing.T) *follower {
		f := openPremises(t, nil).bob(nil, nil)
		require.NoError(t, f.connected().write(make([]byte, protocol.MaxFrameBytes+1)))
		return f
	},
	errcode.CloseFlood: func(t *testing.T) *follower {
		p := openPremises(t, func(cfg *gateway.Config) { cfg.FrameRate = 1 })
		f := p.bob(nil, nil)
		f.connected().inject(1000, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{}}})
		return f
	},
	errcode.CloseLateConnect: func(t *testing.T) *follower { return scripted(t, errcode.CloseLateConnect) },
}

// hears waits until the client has been closed with a code.
func (f *follower) hears(code errcode.CloseCode) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return strings.Contains(f.log.String(), fmt.Sprintf("%s (%d)", code, int(code))) },
		patience, time.Millisecond, "the client's log:\n%s", f.log)
}

func TestEveryCloseCodeIsFinalOrPassing(t *testing.T) {
	for _, row := range errcode.CloseCodes {
		t.Run(row.Name, func(t *testing.T) {
			provoke := closeRows[row.Code]
			require.NotNil(t, provoke, "%d has no row in this test", int(row.Code))
			f := provoke(t)
			if row.Final {
				select {
				case <-f.Ended():
				case <-time.After(patience):
					t.Fatalf("the client does not stay away; its log:\n%s", f.log)
				}
				var closed *client.ClosedError
				require.ErrorAs(t, f.Err(), &closed)
				require.Equal(t, row.Code, closed.Code)
				require.Equal(t, int32(1), f.dials.Load(), "and has not tried again")
				return
			}
			f.hears(row.Code)
			require.Eventually(t, func() bool { return f.dials.Load() > 1 && f.State() == client.Connected }, patience, time.Millisecond,
				"the client does not come back; its log:\n%s", f.log)
		})
	}
	require.Len(t, closeRows, len(errcode.CloseCodes), "a row is for a code that does not exist")
}

// errorRows provoke each error code by a request of a client, and return the client and what it reported to the program.
//
//nolint:thelper // they are tests, not helpers
var errorRows = map[conversationv1.ErrorCode]func(ctx context.Context, t *testing.T) (*follower, error){
	conversationv1.ErrorCode_ERROR_CODE_INVALID: func(ctx context.Context, t *testing.T) (*follower, error) {
		p := openPremises(t, nil)
		return p.asks(func(f *follower) error { _, err := f.Send(ctx, p.id, ""); return err })
	},
	conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND: func(ctx context.Context, t *testing.T) (*follower, error) {
		return openPremises(t, nil).asks(func(f *follower) error { _, err := f.Send(ctx, "g"+strings.Repeat("0", 26), "hi"); return err })
	},
	conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN: func(ctx context.Context, t *testing.T) (*follower, error) {
		p := openPremises(t, nil)
		return p.asks(func(f *follower) error { _, err := f.RemoveMember(ctx, p.id, "cem"); return err })
	},
	conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS: func(ctx context.Context, t *testing.T) (*follower, error) {
		direct := &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{"ann"},
		}}}
		return openPremises(t, nil).asks(func(f *follower) error {
			_, err := f.Submit(ctx, "", direct)
			require.NoError(t, err)
			_, err = f.Submit(ctx, "", direct)
			return err
		})
	},
	conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT: func(ctx context.Context, t *testing.T) (*follower, error) {
		p, id := openPremises(t, nil), uuid.Must(uuid.NewV7()).String()
		return p.asks(func(f *follower) error {
			_, err := f.SubmitID(ctx, p.id, id, text("one"))
			require.NoError(t, err)
			_, err = f.SubmitID(ctx, p.id, id, text("two"))
			return err
		})
	},
	conversationv1.ErrorCode_ERROR_CODE_CONFLICT: func(ctx context.Context, t *testing.T) (*follower, error) {
		p := openPremises(t, nil)
		return p.asks(func(f *follower) error { _, err := f.AddMembers(ctx, p.id, "cem"); return err })
	},
	conversationv1.ErrorCode_ERROR_CODE_LIMIT: func(ctx context.Context, t *testing.T) (*follower, error) {
		p := openPremises(t, nil)
		return p.asks(func(f *follower) (err error) {
			sent, err := f.Send(ctx, p.id, "react to this")
			require.NoError(t, err)
			for i := range protocol.MaxReactionsPerUser + 1 {
				if _, err = f.React(ctx, p.id, sent.GetSeq(), string(rune(0x1f600+i))); err != nil {
					require.Equal(t, protocol.MaxReactionsPerUser, i)
				}
			}
			return err
		})
	},
	conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED: func(ctx context.Context, t *testing.T) (*follower, error) {
		p := openPremises(t, func(cfg *gateway.Config) { cfg.CommandRatePerUser = 0.5 }) // also a slow machine sends more than one in two seconds
		return p.asks(func(f *follower) (err error) {
			for i := range 40 {
				if f.saw(conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED) {
					break
				}
				if _, err = f.Send(ctx, p.id, strconv.Itoa(i)); err != nil {
					break
				}
			}
			return err
		})
	},
	conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE: func(ctx context.Context, t *testing.T) (*follower, error) {
		return failing(ctx, t, codes.Unavailable)
	},
	conversationv1.ErrorCode_ERROR_CODE_INTERNAL: func(ctx context.Context, t *testing.T) (*follower, error) {
		return failing(ctx, t, codes.Internal)
	},
	conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED: func(_ context.Context, t *testing.T) (*follower, error) {
		f := openPremises(t, nil).bob(tokens(t, minted(t, strings.Repeat("x", 32), time.Now())), nil)
		select {
		case <-f.Ended():
		case <-time.After(patience):
		}
		return f, f.Err()
	},
	conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED: func(ctx context.Context, t *testing.T) (*follower, error) {
		p := openPremises(t, nil)
		return p.asks(func(f *follower) error { _, err := f.Send(ctx, p.id, "poison"); return err })
	},
	conversationv1.ErrorCode_ERROR_CODE_PROTOCOL: func(ctx context.Context, t *testing.T) (*follower, error) {
		p := openPremises(t, nil)
		f := p.bob(nil, func(_ int, w *wire) {
			w.change = func(f *clientv1.ClientFrame) *clientv1.ClientFrame {
				if f.GetReadMessages() != nil { // as a client with a defect
					f.Request = &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: "again", DeviceId: "d"}}
				}
				return f
			}
		})
		f.connected()
		_, err := f.ReadMessagesAfter(ctx, p.id, 0, 10)
		return f, err
	},
}

// asks has a client of bob's ask for something.
func (p *premises) asks(ask func(f *follower) error) (*follower, error) {
	p.t.Helper()
	f := p.bob(nil, nil)
	f.connected()
	return f, ask(f)
}

// failing has a client read from a history service whose next call fails.
func failing(ctx context.Context, t *testing.T, code codes.Code) (*follower, error) {
	t.Helper()
	p := openPremises(t, nil)
	return p.asks(func(f *follower) error {
		away := status.Error(code, "away")
		p.faults.reading.Store(&away)
		_, err := f.ReadMessagesAfter(ctx, p.id, 0, 10)
		return err
	})
}

func (f *follower) saw(code conversationv1.ErrorCode) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.codes[code]
}

func TestEveryErrorCodeIsFinalOrPassing(t *testing.T) {
	for _, row := range errcode.Codes {
		t.Run(row.Name, func(t *testing.T) {
			provoke := errorRows[row.Code]
			require.NotNil(t, provoke, "%s has no row in this test", row.Code)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			f, err := provoke(ctx, t)
			require.True(t, f.saw(row.Code), "the server did not answer %s; the client reports %v", row.Name, err)
			if !row.Final() {
				require.NoError(t, err, "the client tries again")
				return
			}
			refused, is := errors.AsType[*client.RefusedError](err)
			require.True(t, is, "%v", err)
			require.Equal(t, row.Code, refused.Code)
		})
	}
	require.Len(t, errorRows, len(errcode.Codes), "a row is for a code that does not exist")
}
