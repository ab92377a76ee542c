package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

const (
	erasePause   = 1500 * time.Millisecond
	eraseTimeout = 5 * time.Second
	// eraseAge is the minimum age of events that are erased by age, so that not all events are erased.
	eraseAge = 15 * time.Second
)

// eraser is an operator who erases content from time to time, in conversations of a device.
type eraser struct {
	*world
	workers []adminv1.AdminServiceClient
	close   func()
	orders  map[string]int
}

func newEraser(w *world, workers []*launch.Process) (*eraser, error) {
	e := &eraser{world: w, close: func() {}, orders: map[string]int{}}
	for _, p := range workers {
		conn, err := grpc.NewClient("passthrough:///"+p.Flag("rpc.listen"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			e.close()
			return nil, fmt.Errorf("reach %s: %w", p.Name(), err)
		}
		before := e.close
		e.close = func() { _ = conn.Close(); before() }
		e.workers = append(e.workers, adminv1.NewAdminServiceClient(conn))
	}
	return e, nil
}

// run erases until ctx ends. Erasures without an answer are then given up.
func (e *eraser) run(ctx context.Context, random *rand.Rand, devices []*device) {
	for launch.Sleep(ctx, erasePause/2+time.Duration(random.Int64N(int64(erasePause)))) == nil {
		d := pick(random, devices...)
		ids := d.conversations()
		if len(ids) == 0 {
			continue
		}
		id := pick(random, ids...)
		if last, known := d.positionOf(id); known && last > 0 {
			e.erase(ctx, random, id, choose(random, last, pick(random, devices...).reader.User))
		}
	}
}

// choose makes a random erasure for a conversation that has at least last events.
func choose(random *rand.Rand, last uint64, user string) *conversationv1.Erase {
	switch random.IntN(20) {
	case 0:
		return &conversationv1.Erase{Sender: user}
	case 1:
		return &conversationv1.Erase{BeforeMs: time.Now().Add(-eraseAge).UnixMilli()}
	default:
		var seqs []uint64
		for range 1 + random.IntN(3) {
			seqs = append(seqs, 1+random.Uint64N(last))
		}
		slices.Sort(seqs)
		return &conversationv1.Erase{Seqs: slices.Compact(seqs)}
	}
}

// erase repeats the command with the same id until there is an answer.
func (e *eraser) erase(ctx context.Context, random *rand.Rand, id string, what *conversationv1.Erase) {
	key := Key{id, string(conversation.ServerUser), uuid.Must(uuid.NewV7()).String()}
	e.orders[id]++
	body := &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: what}}
	e.record.Attempted(Attempt{Key: key, Body: encoded(body), Device: "operator", Order: e.orders[id]})
	asked := time.Now()
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, eraseTimeout)
		answer, err := pick(random, e.workers...).Erase(call, &adminv1.EraseRequest{ConversationId: id, CommandId: key.Command, Erase: what})
		cancel()
		outcome := answer.GetOutcome()
		if err == nil && outcome.GetError().GetCode() != conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE {
			e.record.Answered(Answer{
				Key: key, Asked: asked, At: time.Now(), Seq: outcome.GetSeq(), Repeated: outcome.GetRepeated(), Code: outcome.GetError().GetCode(),
			})
			return
		}
		_ = launch.Sleep(ctx, feedPause)
	}
}
