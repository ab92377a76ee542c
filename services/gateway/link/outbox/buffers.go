package outbox

import "sync"

// Buffers are buffers for messages that are handled and forgotten. The zero value is ready.
type Buffers struct{ pool sync.Pool }

// Take returns a buffer; the caller returns it.
func (b *Buffers) Take() *[]byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return buffer
	}
	buffer := make([]byte, 0, 1024)
	return &buffer
}

// Return puts a buffer back.
func (b *Buffers) Return(buffer *[]byte) { b.pool.Put(buffer) }
