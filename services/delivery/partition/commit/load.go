package commit

import (
	"context"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/store"
)

// loadFor loads the conversations of a batch into the cache.
func (c *Committer) loadFor(ctx context.Context, entries []source.Message) error {
	wanted := make(map[ids.Conversation]struct{}, min(len(entries), 64))
	for i := range entries {
		// An id that no conversation can have is refused without a state, and the store would refuse its lookup.
		if key := source.KeyOf(entries[i].Command); key.Committable() {
			wanted[key.Conversation] = struct{}{}
		}
	}
	return c.LoadConversations(ctx, c.Cache.Missing(nil, wanted))
}

// LoadConversations loads conversations into the cache.
func (c *Committer) LoadConversations(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return store.Ask(ctx, c.reads(), "states", ids, func(ctx context.Context, ids []string) error {
		answer, err := c.History.GetConversations(ctx, &historyv1.GetConversationsRequest{ConversationIds: ids})
		if err == nil {
			c.Cache.AddLoaded(ids, answer.GetConversations(), c.Now().UnixMilli())
		}
		return err
	})
}

// find returns the events of the commands that were committed.
func (c *Committer) find(ctx context.Context, keys []source.CommandKey) ([]*conversationv1.Event, error) {
	var found []*conversationv1.Event
	err := store.Ask(ctx, c.reads(), "first outcomes", keys, func(ctx context.Context, keys []source.CommandKey) error {
		request := &historyv1.FindCommandsRequest{Commands: make([]*historyv1.CommandKey, len(keys))}
		for i, key := range keys {
			request.Commands[i] = key.Proto()
		}
		answer, err := c.History.FindCommands(ctx, request)
		if err == nil {
			found = append(found, answer.GetEvents()...)
		}
		return err
	})
	return found, err
}
