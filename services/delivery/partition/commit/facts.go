package commit

import (
	"context"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/store"
)

// loadFacts loads the facts about messages that the commands of a batch refer to. The conversations must already be in
// memory.
func (c *Committer) loadFacts(ctx context.Context, entries []source.Message) error {
	needs := c.Cache.UnknownNeeds(entries)
	if len(needs) == 0 || BugNeedsNotLoaded {
		return nil
	}
	for len(needs) > 0 {
		chunk := needs[:min(len(needs), rpc.MaxItems)]
		needs = needs[len(chunk):]
		if err := store.Ask(ctx, c.reads(), "facts", chunk, c.askFacts); err != nil {
			return err
		}
	}
	return nil
}

// askFacts calls the store once. Every seq up to the head belongs to an event, so the store must know all of them.
func (c *Committer) askFacts(ctx context.Context, needs []cache.Need) error {
	request := &historyv1.GetFactsRequest{Needs: make([]*historyv1.Need, len(needs))}
	for i, n := range needs {
		request.Needs[i] = &historyv1.Need{ConversationId: string(n.Conversation), Seq: uint64(n.Seq), UserId: string(n.User)}
	}
	answer, err := c.History.GetFacts(ctx, request)
	if err != nil {
		return err
	}
	known := make([]bool, len(needs))
	for _, fact := range answer.GetFacts() {
		if int(fact.GetNeed()) >= len(needs) {
			return fmt.Errorf("the store reported fact %d of %d", fact.GetNeed(), len(needs))
		}
		known[fact.GetNeed()] = true
	}
	for i, ok := range known {
		if !ok {
			err := fmt.Errorf("the store lacks event %d of conversation %s, although it is not above the head; check the log with runnel admin conversations verify",
				needs[i].Seq, needs[i].Conversation)
			c.Host.Alarm(err)
			return err
		}
	}
	c.Cache.AddFacts(needs, answer.GetFacts())
	return nil
}
