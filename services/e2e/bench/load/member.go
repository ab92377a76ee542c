package load

import (
	"fmt"
	"strconv"
)

// NewMember makes an unconnected client that follows all conversations of its user, including conversations to which the
// user is added later.
func NewMember(user, token string) *Client {
	c := NewClient(user, token, "", true)
	c.places = places{}
	return c
}

// places contains the positions of a client in its conversations.
type places map[string]*place

type place struct {
	seq     uint64 // every event up to seq has been received
	unacked bool
}

// of returns the position in a conversation, which the caller is about to advance. An unknown conversation began after
// the client connected, so its position begins before event 1.
func (p places) of(conversation []byte) *uint64 {
	at := p[string(conversation)]
	if at == nil {
		at = &place{}
		p[string(conversation)] = at
	}
	at.unacked = true
	return &at.seq
}

// start takes the heads of unknown conversations from the answer to connect.
func (p places) start(connected []byte) {
	headsOf(connected, func(conversation []byte, head uint64) {
		if p[string(conversation)] == nil {
			p[string(conversation)] = &place{seq: head}
		}
	})
}

// appendAcks appends the positions that changed since the last call.
func (p places) appendAcks(dst []byte) []byte {
	first := true
	for conversation, at := range p {
		if !at.unacked {
			continue
		}
		at.unacked = false
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendAck(dst, conversation, at.seq)
	}
	return dst
}

func appendAck(dst []byte, conversation string, seq uint64) []byte {
	dst = append(dst, `{"conversationId":"`...)
	dst = append(dst, conversation...)
	dst = append(dst, `","delivered":"`...)
	dst = strconv.AppendUint(dst, seq, 10)
	return append(dst, `"}`...)
}

// appendResume appends all positions, as a field of connect.
func (p places) appendResume(dst []byte) []byte {
	if len(p) == 0 {
		return dst
	}
	dst = append(dst, `,"resume":[`...)
	first := true
	for conversation, at := range p {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = fmt.Appendf(dst, `{"conversationId":"%s","seq":"%d"}`, conversation, at.seq)
	}
	return append(dst, ']')
}
