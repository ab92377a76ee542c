package client

import (
	"bytes"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// introduce makes the connect message out of what the client has.
//
// A connect frame has room for protocol.MaxResumePositions conversations. If the client has more, the connection is crowded:
// the conversations that are not named begin at their head, as far as the gateway is concerned, and the client reads what it
// lacks of them once the gateway has listed them. Of those among them that the user has left, the gateway says nothing; settle
// takes care of these.
func (s *session) introduce(token string) *clientv1.Connect {
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	s.start = c.startingPoint()
	connect := &clientv1.Connect{
		Token: token, DeviceId: c.cfg.DeviceID, Start: s.start,
		Accepted: c.cfg.Accepted, NoReceipts: c.cfg.OnReceipt == nil, Client: c.cfg.Software,
		BodyBytes: c.cfg.Codec != frame.Proto && !c.cfg.SkipVerify,
	}
	for _, first := range []bool{true, false} {
		for _, conv := range c.conversations {
			if conv.first != first {
				continue
			}
			if conv.followed = len(connect.GetResume()) < protocol.MaxResumePositions; !conv.followed {
				s.crowded, connect.Start = true, clientv1.Start_START_HEAD
				continue
			}
			connect.Resume = append(connect.Resume, conv.position())
		}
	}
	return connect
}

// position is where the client resumes a conversation.
func (conv *stream) position() *clientv1.Position {
	had := conv.trail.at(conv.last)
	if resumeOffByOne && conv.last > 0 {
		conv.last++
		conv.verifier.Skip()
		had = nil
	}
	position := &clientv1.Position{ConversationId: conv.id, Seq: conv.last}
	if had != nil {
		position.Hash = bytes.Clone(had.hash[:])
	}
	return position
}

// listedAll notes that the gateway has named all conversations of the user. The lock is held.
func (c *Client) listedAll(s *session) {
	c.listed, s.listed, s.strays = true, true, nil
	c.settle()
}

// settle finds the conversations that a crowded connection says nothing of: neither were they named in connect, nor are they
// among the user's, so the membership has ended. The next connect names them, and its gateway sends what is left of them and
// where they end. That connect waits until the gateway has told this about those that were named now. The lock is held.
func (c *Client) settle() {
	s := c.session
	if s == nil || !s.crowded || !s.listed || s.rejoin {
		return
	}
	passedOver := false
	for _, conv := range c.conversations {
		switch {
		case conv.met == s || conv.broken:
		case conv.followed:
			return
		default:
			conv.first, passedOver = true, true
		}
	}
	if passedOver {
		s.rejoin = true
		c.rejoin()
	}
}
