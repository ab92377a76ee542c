package delivery

import (
	"sync"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// acknowledged is the last watermark of a partition that the store acknowledged to this worker. It outlives owners: a store
// that has an older one later was restored, or is a replica that was behind. It is safe for concurrent use.
type acknowledged struct {
	mu   sync.Mutex
	mark *historyv1.Watermark
}

func (a *acknowledged) get() *historyv1.Watermark {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mark
}

// set notes a watermark. It must not be changed afterwards.
func (a *acknowledged) set(mark *historyv1.Watermark) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mark = mark
}

// before reports whether a watermark lies before another one. Within a partition positions only rise.
func before(a, b *historyv1.Watermark) bool {
	if a.GetEpoch() != b.GetEpoch() {
		return a.GetEpoch() < b.GetEpoch()
	}
	return a.GetSequence() < b.GetSequence()
}
