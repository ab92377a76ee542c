package frame

import (
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// The fields of what servers send often, by proto number. A test compares these tables with the schema.
var (
	serverFrameNames = names{
		1:  {"id", "id"},
		2:  {"error", "error"},
		3:  {"connected", "connected"},
		4:  {"refreshed", "refreshed"},
		5:  {"outcome", "outcome"},
		6:  {"page", "page"},
		7:  {"conversations", "conversations"},
		8:  {"members", "members"},
		9:  {"event", "event"},
		10: {"receipt", "receipt"},
		11: {"accepted", "accepted"},
		12: {"heartbeat", "heartbeat"},
		13: {"tokenExpiring", "token_expiring"},
		14: {"goAway", "go_away"},
		15: {"hidden", "hidden"},
		16: {"detached", "detached"},
		17: {"attached", "attached"},
		18: {"traceparent", "traceparent"},
	}
	eventNames = names{
		1:  {"conversationId", "conversation_id"},
		2:  {"seq", "seq"},
		3:  {"timeMs", "time_ms"},
		4:  {"sender", "sender"},
		5:  {"commandId", "command_id"},
		6:  {"kind", "kind"},
		7:  {"body", "body"},
		8:  {"salt", "salt"},
		9:  {"commitment", "commitment"},
		10: {"prevHash", "prev_hash"},
		11: {"hash", "hash"},
	}
	errorNames = names{
		1: {"code", "code"},
		2: {"message", "message"},
		3: {"field", "field"},
		4: {"retryAfterMs", "retry_after_ms"},
	}
	outcomeNames = names{
		1: {"conversationId", "conversation_id"},
		2: {"commandId", "command_id"},
		3: {"seq", "seq"},
		4: {"timeMs", "time_ms"},
		5: {"repeated", "repeated"},
		6: {"error", "error"},
	}
	receiptNames = names{
		1: {"conversationId", "conversation_id"},
		2: {"members", "members"},
		3: {"delivered", "delivered"},
		4: {"read", "read"},
		5: {"version", "version"},
	}
	stepNames = names{
		1: {"seq", "seq"},
		2: {"members", "members"},
	}
	pageNames = names{
		1: {"events", "events"},
		2: {"hidden", "hidden"},
		3: {"head", "head"},
		4: {"more", "more"},
	}
	rangeNames = names{
		1: {"first", "first"},
		2: {"last", "last"},
	}
)

func decodeServerJSON(data []byte, frame *clientv1.ServerFrame) *Error {
	s := scanner{data: data}
	for field := range s.object(serverFrameNames) {
		switch field {
		case 1:
			frame.Id = s.uint64()
			s.id = frame.GetId()
		case 2:
			frame.Message = &clientv1.ServerFrame_Error{Error: s.error()}
		case 5:
			frame.Message = &clientv1.ServerFrame_Outcome{Outcome: s.outcome()}
		case 6:
			frame.Message = &clientv1.ServerFrame_Page{Page: s.page()}
		case 9:
			frame.Message = &clientv1.ServerFrame_Event{Event: s.event()}
		case 10:
			frame.Message = &clientv1.ServerFrame_Receipt{Receipt: s.receipt()}
		case 18:
			frame.Traceparent = s.text()
		default:
			s.rare(field, frame)
		}
	}
	s.end()
	return s.err
}

// rare decodes the messages that come a few times in the life of a connection, by reflection.
func (s *scanner) rare(field int, frame *clientv1.ServerFrame) {
	var m proto.Message
	switch field {
	case 3:
		v := &clientv1.Connected{}
		m, frame.Message = v, &clientv1.ServerFrame_Connected{Connected: v}
	case 4:
		v := &clientv1.Refreshed{}
		m, frame.Message = v, &clientv1.ServerFrame_Refreshed{Refreshed: v}
	case 7:
		v := &clientv1.Conversations{}
		m, frame.Message = v, &clientv1.ServerFrame_Conversations{Conversations: v}
	case 8:
		v := &clientv1.Members{}
		m, frame.Message = v, &clientv1.ServerFrame_Members{Members: v}
	case 11:
		v := &clientv1.Accepted{}
		m, frame.Message = v, &clientv1.ServerFrame_Accepted{Accepted: v}
	case 12:
		v := &clientv1.Heartbeat{}
		m, frame.Message = v, &clientv1.ServerFrame_Heartbeat{Heartbeat: v}
	case 13:
		v := &clientv1.TokenExpiring{}
		m, frame.Message = v, &clientv1.ServerFrame_TokenExpiring{TokenExpiring: v}
	case 14:
		v := &clientv1.GoAway{}
		m, frame.Message = v, &clientv1.ServerFrame_GoAway{GoAway: v}
	case 15:
		v := &clientv1.Hidden{}
		m, frame.Message = v, &clientv1.ServerFrame_Hidden{Hidden: v}
	case 16:
		v := &clientv1.Detached{}
		m, frame.Message = v, &clientv1.ServerFrame_Detached{Detached: v}
	case 17:
		v := &clientv1.Attached{}
		m, frame.Message = v, &clientv1.ServerFrame_Attached{Attached: v}
	}
	value := s.raw()
	if s.err != nil {
		return
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(value, m); err != nil {
		// Its error may repeat what the frame holds.
		s.fail("does not follow its schema")
	}
}

func (s *scanner) event() *conversationv1.Event {
	m := &conversationv1.Event{}
	for field := range s.object(eventNames) {
		switch field {
		case 1:
			m.ConversationId = s.text()
		case 2:
			m.Seq = s.uint64()
		case 3:
			m.TimeMs = s.int64()
		case 4:
			m.Sender = s.text()
		case 5:
			m.CommandId = s.text()
		case 6:
			m.Kind = conversationv1.EventKind(s.enum(conversationv1.EventKind_value, conversationv1.EventKind_name))
		case 7:
			m.Body = s.body()
		case 8:
			m.Salt = s.base64()
		case 9:
			m.Commitment = s.base64()
		case 10:
			m.PrevHash = s.base64()
		case 11:
			m.Hash = s.base64()
		}
	}
	return m
}

func (s *scanner) error() *conversationv1.Error {
	m := &conversationv1.Error{}
	for field := range s.object(errorNames) {
		switch field {
		case 1:
			m.Code = conversationv1.ErrorCode(s.enum(conversationv1.ErrorCode_value, conversationv1.ErrorCode_name))
		case 2:
			m.Message = s.text()
		case 3:
			m.Field = s.text()
		case 4:
			m.RetryAfterMs = s.uint32()
		}
	}
	return m
}

func (s *scanner) outcome() *conversationv1.Outcome {
	m := &conversationv1.Outcome{}
	for field := range s.object(outcomeNames) {
		switch field {
		case 1:
			m.ConversationId = s.text()
		case 2:
			m.CommandId = s.text()
		case 3:
			m.Seq = s.uint64()
		case 4:
			m.TimeMs = s.int64()
		case 5:
			m.Repeated = s.bool()
		case 6:
			m.Error = s.error()
		}
	}
	return m
}

func (s *scanner) receipt() *conversationv1.Receipt {
	m := &conversationv1.Receipt{}
	for field := range s.object(receiptNames) {
		switch field {
		case 1:
			m.ConversationId = s.text()
		case 2:
			m.Members = s.uint32()
		case 3:
			m.Delivered = s.steps()
		case 4:
			m.Read = s.steps()
		case 5:
			m.Version = s.int64()
		}
	}
	return m
}

func (s *scanner) steps() []*conversationv1.Step {
	var list []*conversationv1.Step
	for range s.array {
		m := &conversationv1.Step{}
		for field := range s.object(stepNames) {
			switch field {
			case 1:
				m.Seq = s.uint64()
			case 2:
				m.Members = s.uint32()
			}
		}
		list = append(list, m)
	}
	return list
}

func (s *scanner) page() *clientv1.Page {
	m := &clientv1.Page{}
	for field := range s.object(pageNames) {
		switch field {
		case 1:
			for range s.array {
				m.Events = append(m.Events, s.event())
			}
		case 2:
			for range s.array {
				hidden := &conversationv1.Range{}
				for field := range s.object(rangeNames) {
					switch field {
					case 1:
						hidden.First = s.uint64()
					case 2:
						hidden.Last = s.uint64()
					}
				}
				m.Hidden = append(m.Hidden, hidden)
			}
		case 3:
			m.Head = s.uint64()
		case 4:
			m.More = s.bool()
		}
	}
	return m
}
