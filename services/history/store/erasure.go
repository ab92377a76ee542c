package store

import (
	"slices"
	"time"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// ErasureTimeout is how long an append that erases may take: it may reach all events of a conversation.
const ErasureTimeout = 2 * time.Minute

// Erases reports whether an append erases content.
func Erases(request *historyv1.AppendRequest) bool {
	return slices.ContainsFunc(request.GetEffects(), func(e *historyv1.Effect) bool { return e.GetEraseEvents() != nil })
}
