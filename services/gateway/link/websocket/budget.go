package websocket

import "sync/atomic"

// Budget limits the memory that several messages use together while they are being read. It is safe for use by several
// goroutines.
type Budget struct {
	max  int64
	used atomic.Int64
}

// NewBudget returns a budget of this many bytes.
func NewBudget(bytes int64) *Budget { return &Budget{max: bytes} }

// Take takes bytes from the budget; the caller gives them back with Return. It returns false if too few bytes are left.
func (b *Budget) Take(bytes int64) bool {
	if b.used.Add(bytes) > b.max {
		b.used.Add(-bytes)
		return false
	}
	return true
}

// Return gives bytes back.
func (b *Budget) Return(bytes int64) { b.used.Add(-bytes) }

// Used returns the number of bytes that are taken.
func (b *Budget) Used() int64 { return b.used.Load() }
