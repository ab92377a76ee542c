package frame

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// A stored event contains its body as bytes, which are hashed. The client protocol's event contains the decoded body, and
// the bytes in addition. This file converts one into the other. A test checks that no field is forgotten.

// ToClient decodes a stored event. Its BodyBytes are those of the event, not a copy. Fields of the body that this version
// does not know are in BodyBytes only.
func ToClient(event *conversationv1.Event) *clientv1.Event {
	decoded := &clientv1.Event{}
	setEvent(decoded, JSONWithBytes, event)
	decoded.KindNumber = 0 // the number of the kind is needed only in JSON; a Go program has it in Kind
	return decoded
}

// FromClient returns the event in its stored form, so that it can be verified. Its body is BodyBytes, not a copy and never
// the decoded body encoded again: it is empty if the event came without the bytes.
func FromClient(event *clientv1.Event) *conversationv1.Event {
	stored := &conversationv1.Event{}
	SetStored(stored, event)
	return stored
}

// SetStored is FromClient that overwrites every field of an event of the caller's.
func SetStored(stored *conversationv1.Event, event *clientv1.Event) {
	stored.ConversationId = event.GetConversationId()
	stored.Seq = event.GetSeq()
	stored.TimeMs = event.GetTimeMs()
	stored.Sender = event.GetSender()
	stored.CommandId = event.GetCommandId()
	stored.Kind = event.GetKind()
	if event.GetKindNumber() != 0 {
		stored.Kind = conversationv1.EventKind(event.GetKindNumber())
	}
	stored.Body = event.GetBodyBytes()
	stored.Salt = event.GetSalt()
	stored.Commitment = event.GetCommitment()
	stored.PrevHash = event.GetPrevHash()
	stored.Hash = event.GetHash()
	stored.Format = event.GetFormat()
	stored.HeaderExtra = event.GetHeaderExtra()
}

// setEvent decodes a stored event into an empty one, for the codec that it will be encoded with.
func setEvent(decoded *clientv1.Event, codec Codec, event *conversationv1.Event) {
	decoded.ConversationId = event.GetConversationId()
	decoded.Seq = event.GetSeq()
	decoded.TimeMs = event.GetTimeMs()
	decoded.Sender = event.GetSender()
	decoded.CommandId = event.GetCommandId()
	decoded.Kind = event.GetKind()
	decoded.Salt = event.GetSalt()
	decoded.Commitment = event.GetCommitment()
	decoded.PrevHash = event.GetPrevHash()
	decoded.Hash = event.GetHash()
	decoded.Format = event.GetFormat()
	decoded.HeaderExtra = event.GetHeaderExtra()
	if codec == JSONWithBytes {
		decoded.KindNumber = uint32(event.GetKind())
	}
	if len(event.GetBody()) == 0 {
		return // the body was erased
	}
	body := &conversationv1.Body{}
	// The bytes were admitted by a gateway, so an error means that this version cannot read them. The part that could be
	// read is sent, because the event must not be lost.
	_ = body.UnmarshalVT(event.GetBody())
	decoded.Body = body
	if codec == JSONWithBytes {
		decoded.BodyBytes = event.GetBody()
	}
}

// hasBodyBytes reports whether an event of the frame has BodyBytes.
func hasBodyBytes(frame *clientv1.ServerFrame) bool {
	switch m := frame.GetMessage().(type) {
	case *clientv1.ServerFrame_Event:
		return m.Event.GetBodyBytes() != nil
	case *clientv1.ServerFrame_Page:
		for _, event := range m.Page.GetEvents() {
			if event.GetBodyBytes() != nil {
				return true
			}
		}
	}
	return false
}

// appendStored encodes a frame whose events have BodyBytes as the frame of the stored events.
func appendStored(dst []byte, codec Codec, frame *clientv1.ServerFrame) []byte {
	if event := frame.GetEvent(); event != nil {
		return appendEvent(dst, codec, frame.GetId(), stored(event), frame.GetTraceparent())
	}
	page := frame.GetPage()
	events := make([]*conversationv1.Event, len(page.GetEvents()))
	for i, event := range page.GetEvents() {
		events[i] = stored(event)
	}
	return appendPage(dst, codec, frame.GetId(), &Page{
		Events: events, Hidden: page.GetHidden(), Head: page.GetHead(), More: page.GetMore(),
	}, frame.GetTraceparent())
}

// stored is FromClient that encodes the body of an event without BodyBytes.
func stored(event *clientv1.Event) *conversationv1.Event {
	m := FromClient(event)
	if m.GetBody() == nil && event.GetBody() != nil {
		m.Body, _ = event.GetBody().MarshalVT() // it fails only for messages that vtprotobuf did not generate
	}
	return m
}
