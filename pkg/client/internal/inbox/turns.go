package inbox

// maxTurns is the number of conversations that may read at the same time.
const maxTurns = 4

// turns gives each conversation its turn to read, in the order of arrival, maxTurns at the same time.
type turns struct {
	waiting []*Conversation
	running int
}

func (t *turns) wait(conv *Conversation) { t.waiting = append(t.waiting, conv) }

// next removes and returns the next waiting conversation; nil if none waits or all turns are taken.
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
