package torture

import (
	"math/rand/v2"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// recent are the newest messages that a device was shown of a conversation: those it may refer to.
type recent struct {
	seqs []uint64
	own  []uint64 // those of its user
}

const maxRecent = 30

func (r *recent) add(seq uint64, own bool) {
	keep := func(seqs []uint64) []uint64 {
		seqs = append(seqs, seq)
		return seqs[max(0, len(seqs)-maxRecent):]
	}
	r.seqs = keep(r.seqs)
	if own {
		r.own = keep(r.own)
	}
}

// emojis are few, so that reactions are often given that are there already, or taken back.
var emojis = []string{"👍", "🎉", "❤️"}

// compose makes a command of a conversation: mostly a message, or something that is about one: an answer, an edit, a deletion, a
// reaction. What is refused because the message was deleted or the reaction is there already is part of the load.
func (d *device) compose(random *rand.Rand, id, text string) *conversationv1.Body {
	d.mu.Lock()
	messages := recent{}
	if known := d.messages[id]; known != nil {
		messages = *known
	}
	d.mu.Unlock()
	roll := random.IntN(100)
	switch {
	case roll < 60 || len(messages.seqs) == 0:
		return message(text)
	case roll < 68:
		return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text, ReplyTo: pick(random, messages.seqs...)}}}
	case roll < 84:
		return &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{
			Target: pick(random, messages.seqs...), Emoji: pick(random, emojis...), Remove: random.IntN(3) == 0,
		}}}
	case len(messages.own) == 0:
		return message(text)
	case roll < 96:
		return &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: pick(random, messages.own...), Text: text}}}
	default:
		return &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: pick(random, messages.own...)}}}
	}
}
