package bench

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets. Each bucket is at most 1/128 wider than the one before, so a percentile is exact
// to one percent. One goroutine adds; others may read at the same time.
type histogram struct {
	counts [(64 - precision) << precision]atomic.Uint32
	total  atomic.Uint64
	most   atomic.Int64
}

const precision = 7 // bits

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))].Add(1)
	h.total.Add(1)
	if int64(d) > h.most.Load() {
		h.most.Store(int64(d))
	}
}

// bucket keeps the highest bits of n.
func bucket(n uint64) int {
	shift := max(0, bits.Len64(n)-precision-1)
	return shift<<precision + int(n>>shift)
}

// upper is the largest number in a bucket.
func upper(bucket int) uint64 {
	shift := max(0, bucket>>precision-1)
	return uint64(bucket-shift<<precision+1)<<shift - 1
}

func (h *histogram) count() uint64 { return h.total.Load() }

// quantile returns the duration that a share q of all durations do not exceed; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	total := h.total.Load()
	if total == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(q*float64(total))))
	var seen uint64
	for i := range h.counts {
		if seen += uint64(h.counts[i].Load()); seen >= rank {
			return min(time.Duration(upper(i)), h.longest())
		}
	}
	return h.longest()
}

func (h *histogram) longest() time.Duration { return time.Duration(h.most.Load()) }
