package torture

import (
	"math/rand/v2"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// recent contains the newest messages of a conversation that a device was shown. Its commands may refer to them.
type recent struct {
	seqs []uint64
	own  []uint64 // messages of the device's own user
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

// emojis is short, so that reactions are often added that exist already, or removed.
var emojis = []string{"👍", "🎉", "❤️"}

// compose makes a command of a conversation: usually a message, sometimes a command about a message: a reply, an edit, a
// deletion, a reaction. Refusals because a message was deleted or a reaction exists are expected.
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
