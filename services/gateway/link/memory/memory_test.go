package memory_test

import (
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/linktest"
	"github.com/runnelhq/runnel/services/gateway/link/memory"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLink(t *testing.T) {
	linktest.Run(t, func(t *testing.T, shared *outbox.Shared, receiver link.Receiver) (link.Link, linktest.Client) {
		t.Helper()
		l, client := memory.New(shared, 1, wire.WebSocketProto)
		var serving sync.WaitGroup
		serving.Go(func() { l.Serve(receiver) })
		t.Cleanup(func() {
			client.Lose()
			serving.Wait()
			shared.Writers.Wait()
		})
		return l, client
	})
}
