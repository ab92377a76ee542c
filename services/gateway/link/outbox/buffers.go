package outbox

import "sync"

// Buffers is a pool of buffers for short-lived messages. The zero value is ready.
type Buffers struct{ pool sync.Pool }

// Take returns a buffer, which the caller must give back with Return.
func (b *Buffers) Take() *[]byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return buffer
	}
	buffer := make([]byte, 0, 1024)
	return &buffer
}

// Return puts a buffer back.
func (b *Buffers) Return(buffer *[]byte) { b.pool.Put(buffer) }
