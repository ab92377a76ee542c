package client_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func receiptOf(h *history, version int64) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Receipt{Receipt: &conversationv1.Receipt{ConversationId: h.id, Version: version}}}
}

// After the server was restored, receipts may have lower versions.
func TestReceiptsComeAgainAfterAFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(8)
		var f forks
		let := make(chan struct{})
		_, _ = start(t, g, fromFirst, f.watch, func(cfg *client.Config) {
			cfg.OnReceipt = func(receipt *conversationv1.Receipt) {
				f.told = append(f.told, fmt.Sprint("version ", receipt.GetVersion()))
			}
			see := cfg.OnEvent
			cfg.OnEvent = func(ctx context.Context, event client.Event) {
				if event.GetSeq() == 8 {
					<-let
				}
				see(ctx, event)
			}
		})
		l, _ := g.accept(t, connected(h.info()))
		for seq := range uint64(7) {
			l.send(h.push(seq + 1))
		}
		l.send(receiptOf(h, 900))
		synctest.Wait()
		require.Equal(t, "version 900", f.told[len(f.told)-1])
		// When the fork is found, this receipt is queued behind an event for a slow program.
		l.send(h.push(8), receiptOf(h, 901))
		synctest.Wait()
		h.back(5)
		l.send(forked(h, 8))
		_, _ = l.answerReads(t, h)
		l, _ = g.accept(t, connected(h.info()))
		h.grow(1)
		l.send(receiptOf(h, 100), h.push(6), receiptOf(h, 99))
		synctest.Wait()
		close(let)
		synctest.Wait()
		require.Equal(t, []string{"version 900", "8", "8>5", "version 100", "6"}, f.told[7:])
		l.send(receiptOf(h, 101))
		synctest.Wait()
		require.Equal(t, "version 101", f.told[len(f.told)-1])
	})
}
