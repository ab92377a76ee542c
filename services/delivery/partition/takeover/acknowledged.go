package takeover

import (
	"sync"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Acknowledged is the last watermark of a partition that the store acknowledged to this worker. It is kept after the work
// on the partition ends. If the store later has an older watermark, the store was restored, or is a replica that was
// behind. Acknowledged is safe for concurrent use.
type Acknowledged struct {
	mu   sync.Mutex
	mark *historyv1.Watermark
}

func (a *Acknowledged) get() *historyv1.Watermark {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mark
}

// Set stores a watermark. The caller must not change it afterwards.
func (a *Acknowledged) Set(mark *historyv1.Watermark) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mark = mark
}

// Before reports whether a watermark is before another one. Within a partition, positions only rise.
func Before(a, b *historyv1.Watermark) bool {
	if a.GetEpoch() != b.GetEpoch() {
		return a.GetEpoch() < b.GetEpoch()
	}
	return a.GetSequence() < b.GetSequence()
}
