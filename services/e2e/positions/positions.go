// Package positions keeps the positions of a client in memory, so that they outlive it. Tests and the torture run use it for
// programs that end and start again.
package positions

import (
	"context"
	"maps"
	"sync"

	"github.com/runnelhq/runnel/pkg/client"
)

// Kept are the positions of one device. The zero value has none. It is safe for concurrent use.
type Kept struct {
	mu   sync.Mutex
	byID map[string]client.Position
}

var _ client.Cursors = (*Kept)(nil)

// Load implements client.Cursors.
func (k *Kept) Load(context.Context) (map[string]client.Position, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.byID), nil
}

// Save implements client.Cursors.
func (k *Kept) Save(_ context.Context, id string, position client.Position) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byID == nil {
		k.byID = map[string]client.Position{}
	}
	k.byID[id] = position
	return nil
}

// Forget implements client.Cursors.
func (k *Kept) Forget(_ context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byID, id)
	return nil
}
