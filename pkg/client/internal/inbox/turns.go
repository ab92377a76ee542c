package inbox

// maxTurns is how many conversations have their turn at the same time.
const maxTurns = 4

// turns gives conversations their turn in the order of arrival, a few at the same time.
type turns struct {
	waiting []*Conversation
	running int
}

func (t *turns) wait(conv *Conversation) { t.waiting = append(t.waiting, conv) }

// next removes and returns the next conversation, if it may have its turn now; nil otherwise.
func (t *turns) next() *Conversation {
	if len(t.waiting) == 0 || t.running >= maxTurns {
		return nil
	}
	conv := t.waiting[0]
	if t.waiting = t.waiting[1:]; len(t.waiting) == 0 {
		t.waiting = nil
	}
	return conv
}
