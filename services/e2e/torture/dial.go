package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
)

// dialer opens connections to one of several gateways. Like a load balancer, it chooses another gateway each time that
// the last connection failed.
type dialer struct {
	urls []string
	// sockets opens the underlying TCP connections; nil opens ordinary ones.
	sockets *net.Dialer

	mu     sync.Mutex
	random *rand.Rand
	made   int
}

func newDialer(urls []string, seed uint64, sockets *net.Dialer) *dialer {
	return &dialer{urls: urls, sockets: sockets, random: rand.New(rand.NewPCG(seed, 2))}
}

// connections returns the number of connections so far.
func (d *dialer) connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.made
}

func (d *dialer) pick() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.urls[d.random.IntN(len(d.urls))]
}

// dialTimeout is short, because a paused gateway accepts connections but never answers.
const dialTimeout = 2 * time.Second

// dial implements client.DialFunc; it ignores the URL.
func (d *dialer) dial(ctx context.Context, _ string, header http.Header) (client.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	socket := &websocket.Dialer{ReadBufferSize: 4096, WriteBufferSize: 4096}
	if d.sockets != nil {
		socket.NetDialContext = d.sockets.DialContext
	}
	ws, response, err := socket.DialContext(ctx, d.pick(), header)
	if response != nil {
		defer response.Body.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("dial a gateway: %w", err)
	}
	d.mu.Lock()
	d.made++
	d.mu.Unlock()
	codec, _ := frame.CodecFor(ws.Subprotocol())
	return &conn{ws: ws, opcode: codec.MessageType()}, nil
}

// conn implements client.Conn for a WebSocket.
type conn struct {
	ws     *websocket.Conn
	opcode int
}

func (c *conn) ReadMessage() ([]byte, error) {
	_, message, err := c.ws.ReadMessage()
	return message, err
}

const writeTimeout = 5 * time.Second

func (c *conn) WriteMessage(message []byte) error {
	if err := c.ws.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return c.ws.WriteMessage(c.opcode, message)
}

func (c *conn) Close() error { return c.ws.Close() }
