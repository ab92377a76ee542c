package load

import "bytes"

// kind is the type of a line from the server.
type kind uint8

const (
	kindOther kind = iota // answers and pushes that a load does not use
	kindEvent
	kindOutcome
	kindConnected
	kindHeartbeat
	kindReceipt
	kindError
	kindHidden
	kindDetached
	kindGoAway
)

// kinds are identified by the field that contains the message. Frequent kinds come first.
var kinds = []struct {
	key  []byte
	kind kind
}{
	{[]byte(`"event":{`), kindEvent},
	{[]byte(`"outcome":{`), kindOutcome},
	{[]byte(`"receipt":{`), kindReceipt},
	{[]byte(`"heartbeat":{`), kindHeartbeat},
	{[]byte(`"connected":{`), kindConnected},
	{[]byte(`"error":{`), kindError},
	{[]byte(`"hidden":{`), kindHidden},
	{[]byte(`"detached":{`), kindDetached},
	{[]byte(`"goAway":{`), kindGoAway},
}

// classify returns the kind of a line, the id of the request that it answers (0 for a push), and the text after the key.
func classify(line []byte) (what kind, id uint64, body []byte) {
	if len(line) < 2 || line[0] != '{' {
		return kindOther, 0, nil
	}
	rest := line[1:]
	if after, found := bytes.CutPrefix(rest, idKey); found {
		id, rest = number(after)
		rest = bytes.TrimPrefix(rest, []byte(`",`))
	}
	for i := range kinds {
		if body, found := bytes.CutPrefix(rest, kinds[i].key); found {
			return kinds[i].kind, id, body
		}
	}
	return kindOther, id, nil
}

var (
	idKey           = []byte(`"id":"`)
	conversationKey = []byte(`"conversationId":"`)
	seqKey          = []byte(`"seq":"`)
	seqAfterID      = []byte(`","seq":"`)
	textKey         = []byte(`"text":"`)
	senderKey       = []byte(`"sender":"`)
	headKey         = []byte(`"head":`)
	deliveredKey    = []byte(`"delivered":[{"seq":"`)
	membersKey      = []byte(`"members":`)
	listedKey       = []byte(`"conversationId":`)
	quote           = []byte(`"`)
	errorKey        = []byte(`"error":{`)
)

// number reads decimal digits.
func number(text []byte) (n uint64, rest []byte) {
	i := 0
	for i < len(text) && text[i]-'0' <= 9 {
		n = n*10 + uint64(text[i]-'0')
		i++
	}
	return n, text[i:]
}

// position reads the conversation and the seq at the beginning of an event. It returns false if the event has another
// beginning.
func position(body []byte) (conversation []byte, seq uint64, ok bool) {
	rest, found := bytes.CutPrefix(body, conversationKey)
	if !found {
		return nil, 0, false
	}
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil, 0, false
	}
	digits, found := bytes.CutPrefix(rest[end:], seqAfterID)
	if !found {
		return nil, 0, false
	}
	seq, _ = number(digits)
	return rest[:end], seq, seq > 0
}

// seqOf reads the seq of an outcome; 0 if the command was refused.
func seqOf(outcome []byte) uint64 {
	if bytes.Contains(outcome, errorKey) {
		return 0
	}
	_, digits, _ := bytes.Cut(outcome, seqKey)
	seq, _ := number(digits)
	return seq
}

// SentAt reads the time at which a message was sent, which Submit wrote into its text. It returns 0 for other events.
func SentAt(event []byte) int64 {
	_, text, _ := bytes.Cut(event, textKey)
	n, _ := number(text)
	return int64(n)
}

// deliveredOf reads the first step of a receipt: the highest position, and how many members have reached it.
func deliveredOf(receipt []byte) (seq uint64, members int) {
	_, step, found := bytes.Cut(receipt, deliveredKey)
	if !found {
		return 0, 0
	}
	seq, rest := number(step)
	_, digits, _ := bytes.Cut(rest, membersKey)
	n, _ := number(digits)
	return seq, int(n)
}

// headsOf reads the conversations in the answer to connect and their heads.
func headsOf(connected []byte, found func(conversation []byte, head uint64)) {
	for {
		_, rest, more := bytes.Cut(connected, listedKey)
		if !more {
			return
		}
		_, rest, _ = bytes.Cut(rest, quote)
		id, rest, _ := bytes.Cut(rest, quote)
		connected = rest
		own, _, _ := bytes.Cut(rest, listedKey) // a head of 0 is omitted
		found(id, headOf(own))
	}
}

// headOf reads the head of the first conversation in the answer to connect; 0 if there is none.
func headOf(connected []byte) uint64 {
	_, rest, _ := bytes.Cut(connected, headKey)
	// The answer to connect is written by protojson, which varies its white space.
	head, _ := number(bytes.TrimLeft(rest, ` "`))
	return head
}

// SentBy reports whether an event was sent by a user.
func SentBy(event []byte, user string) bool {
	_, sender, _ := bytes.Cut(event, senderKey)
	rest, found := bytes.CutPrefix(sender, []byte(user))
	return found && len(rest) > 0 && rest[0] == '"'
}
