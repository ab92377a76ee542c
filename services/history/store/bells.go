package store

import (
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
)

// FeedRecheck is how often a waiting reader reads again, in case the notification of an append was lost.
const FeedRecheck = 2 * time.Second

// Bells wake readers of the feed, one bell for each partition. An append without waiting readers costs only one lock.
type Bells struct {
	mu    sync.Mutex
	bells map[ids.Partition]chan struct{}
}

// Bell returns a channel that is closed by the next Ring for the partition.
func (b *Bells) Bell(partition ids.Partition) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	bell := b.bells[partition]
	if bell == nil {
		bell = make(chan struct{})
		if b.bells == nil {
			b.bells = map[ids.Partition]chan struct{}{}
		}
		b.bells[partition] = bell
	}
	return bell
}

// Ring wakes all readers that wait for the partition.
func (b *Bells) Ring(partition ids.Partition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bell := b.bells[partition]; bell != nil {
		close(bell)
		delete(b.bells, partition)
	}
}
