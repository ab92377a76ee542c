package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
)

const (
	// The largest message of the server is a page of at most protocol.MaxPage events, or the backlog of a slow reader.
	// This limit is far above both.
	maxMessageBytes = 64 << 20
	// A process may have ten thousand clients, most of them idle, so an idle client must use little memory.
	readBufferBytes  = 1024
	writeBufferBytes = 4096
	keepBufferBytes  = 4096
	// Time limit of a write; after it the connection counts as dead.
	writeTimeout = 10 * time.Second
	// Time limit for sending the close frame.
	closeTimeout = 250 * time.Millisecond
)

// DialWebSocket returns a function that opens WebSocket connections. The header names the subprotocol to request.
func DialWebSocket(trust *tls.Config) func(ctx context.Context, url string, header http.Header) (Conn, error) {
	// Each write takes a buffer from the pool and returns it.
	dialer := &websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, ReadBufferSize: readBufferBytes,
		WriteBufferSize: writeBufferBytes, WriteBufferPool: &sync.Pool{}, TLSClientConfig: trust,
	}
	return func(ctx context.Context, url string, header http.Header) (Conn, error) {
		ws, response, err := dialer.DialContext(ctx, url, header) //nolint:bodyclose // the dialer has already read the body
		switch {
		case response != nil && err != nil:
			return nil, fmt.Errorf("dial gateway: answered with HTTP status %d: %w", response.StatusCode, err)
		case err != nil:
			return nil, fmt.Errorf("dial gateway: %w", err)
		}
		codec, known := frame.CodecFor(ws.Subprotocol())
		if want := header.Get("Sec-WebSocket-Protocol"); !known || codec.Subprotocol() != want {
			_ = ws.Close()
			return nil, fmt.Errorf("dial gateway: it does not support %s", want)
		}
		ws.SetReadLimit(maxMessageBytes)
		return &webSocket{ws: ws, opcode: codec.MessageType()}, nil
	}
}

type webSocket struct {
	ws     *websocket.Conn
	opcode int
	buf    []byte
}

func (w *webSocket) ReadMessage() ([]byte, error) {
	_, reader, err := w.ws.NextReader()
	if err != nil {
		return nil, err
	}
	if cap(w.buf) > keepBufferBytes || w.buf == nil {
		w.buf = make([]byte, 0, 512)
	}
	w.buf = w.buf[:0]
	for {
		if len(w.buf) == cap(w.buf) {
			w.buf = append(w.buf, 0)[:len(w.buf)]
		}
		n, err := reader.Read(w.buf[len(w.buf):cap(w.buf)])
		w.buf = w.buf[:len(w.buf)+n]
		if errors.Is(err, io.EOF) {
			return w.buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (w *webSocket) WriteMessage(message []byte) error {
	if err := w.ws.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return w.ws.WriteMessage(w.opcode, message)
}

func (w *webSocket) Close() error {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	// The peer may have disconnected already, so the error is ignored.
	_ = w.ws.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(closeTimeout))
	return w.ws.Close()
}

// closeOf describes how the gateway closed the connection; nil if it ended without a close frame.
func closeOf(err error) *Close {
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code < 4000 {
		return nil
	}
	return &Close{Code: errcode.CloseCode(closed.Code), Reason: closed.Text}
}
