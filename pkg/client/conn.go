package client

import (
	"context"
	"net/http"
)

// Conn is one connection to a gateway. One goroutine calls ReadMessage, another one WriteMessage. Any goroutine may call
// Close.
type Conn interface {
	// ReadMessage returns the next message, valid until the next call. If the gateway closed the connection, the error wraps a
	// *websocket.CloseError of gorilla/websocket.
	ReadMessage() ([]byte, error)
	// WriteMessage sends one message. It must not block forever.
	WriteMessage(message []byte) error
	// Close ends the connection and every call that waits for it. It may be called more than once.
	Close() error
}

// DialFunc opens one connection. The header names the subprotocol to ask for.
type DialFunc func(ctx context.Context, url string, header http.Header) (Conn, error)
