package torture

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/skew"
)

// newUser is a user whose program is of the next version.
const newUser = "newcomer"

const newPause = 300 * time.Millisecond

// newcomer writes messages with a field of the next version. A gateway of the current version refuses them; the program
// retries until a gateway of the next version accepts them. All other parts must keep the field, whatever their version.
type newcomer struct {
	byHand
	id        string
	order     int
	committed int
}

// run sends messages until ctx ends. Messages without an answer are then given up.
func (n *newcomer) run(ctx context.Context) {
	for launch.Sleep(ctx, newPause) == nil {
		n.order++
		key := Key{n.id, newUser, uuid.Must(uuid.NewV7()).String()}
		body := hinted(fmt.Sprintf("hello from the next version, %d", n.order))
		n.record.Attempted(Attempt{Key: key, Body: encoded(body), Device: n.name, Order: n.order})
		outcome, err := n.give(ctx, key, body, 0)
		if err != nil {
			return
		}
		if outcome.GetSeq() > 0 {
			n.committed++
		}
	}
}

// hinted returns a message with the field that the next version adds.
func hinted(text string) *conversationv1.Body {
	body := message(text)
	field := protowire.AppendTag(nil, skew.HintField, protowire.BytesType)
	body.GetMessage().ProtoReflect().SetUnknown(protowire.AppendString(field, "loud"))
	return body
}
