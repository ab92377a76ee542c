package frame

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// The fields of what clients send, by proto number. A test compares these tables with the schema.
var (
	clientFrameNames = names{
		1: {"id", "id"},
		2: {"connect", "connect"},
		3: {"refresh", "refresh"},
		4: {"submit", "submit"},
		5: {"read", "read"},
		6: {"listConversations", "list_conversations"},
		7: {"listMembers", "list_members"},
		8: {"ack", "ack"},
		9: {"pong", "pong"},
	}
	connectNames = names{
		1: {"token", "token"},
		2: {"deviceId", "device_id"},
		3: {"resume", "resume"},
		4: {"start", "start"},
		5: {"accepted", "accepted"},
		6: {"noReceipts", "no_receipts"},
		7: {"client", "client"},
	}
	positionNames = names{
		1: {"conversationId", "conversation_id"},
		2: {"seq", "seq"},
	}
	refreshNames = names{1: {"token", "token"}}
	submitNames  = names{
		1: {"conversationId", "conversation_id"},
		2: {"commandId", "command_id"},
		3: {"body", "body"},
		4: {"traceparent", "traceparent"},
	}
	readNames = names{
		1: {"conversationId", "conversation_id"},
		2: {"after", "after"},
		3: {"before", "before"},
		4: {"limit", "limit"},
		5: {"backward", "backward"},
	}
	listConversationsNames = names{
		1: {"after", "after"},
		2: {"limit", "limit"},
	}
	listMembersNames = names{
		1: {"conversationId", "conversation_id"},
		2: {"after", "after"},
		3: {"limit", "limit"},
	}
	ackNames         = names{1: {"positions", "positions"}}
	ackPositionNames = names{
		1: {"conversationId", "conversation_id"},
		2: {"delivered", "delivered"},
		3: {"read", "read"},
	}
	pongNames = names{}
	bodyNames = names{
		1: {"create", "create"},
		2: {"message", "message"},
		3: {"addMembers", "add_members"},
		4: {"removeMember", "remove_member"},
		5: {"leave", "leave"},
		6: {"rename", "rename"},
	}
	createNames = names{
		1: {"kind", "kind"},
		2: {"name", "name"},
		3: {"members", "members"},
	}
	messageNames = names{
		1: {"text", "text"},
		2: {"replyTo", "reply_to"},
		3: {"metadata", "metadata"},
	}
	addMembersNames   = names{1: {"members", "members"}}
	removeMemberNames = names{1: {"member", "member"}}
	leaveNames        = names{}
	renameNames       = names{1: {"name", "name"}}
)

const secondChoice = "is a second choice where only one may be made"

func decodeClientJSON(data []byte, frame *clientv1.ClientFrame) *Error {
	s := scanner{data: data, strict: true}
	s.clientFrame(frame)
	s.end()
	if s.err == nil && frame.Request == nil {
		s.fail("must hold exactly one request")
	}
	return s.err
}

func (s *scanner) clientFrame(frame *clientv1.ClientFrame) {
	for field := range s.object(clientFrameNames) {
		if field > 1 && frame.Request != nil {
			s.fail(secondChoice)
			return
		}
		switch field {
		case 1:
			frame.Id = s.uint64()
			s.id = frame.GetId()
		case 2:
			frame.Request = &clientv1.ClientFrame_Connect{Connect: s.connect()}
		case 3:
			m := &clientv1.Refresh{}
			for range s.object(refreshNames) {
				m.Token = s.text()
			}
			frame.Request = &clientv1.ClientFrame_Refresh{Refresh: m}
		case 4:
			frame.Request = &clientv1.ClientFrame_Submit{Submit: s.submit()}
		case 5:
			frame.Request = &clientv1.ClientFrame_Read{Read: s.read()}
		case 6:
			frame.Request = &clientv1.ClientFrame_ListConversations{ListConversations: s.listConversations()}
		case 7:
			frame.Request = &clientv1.ClientFrame_ListMembers{ListMembers: s.listMembers()}
		case 8:
			frame.Request = &clientv1.ClientFrame_Ack{Ack: s.ack()}
		case 9:
			for range s.object(pongNames) {
			}
			frame.Request = &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}
		}
	}
}

func (s *scanner) connect() *clientv1.Connect {
	m := &clientv1.Connect{}
	for field := range s.object(connectNames) {
		switch field {
		case 1:
			m.Token = s.text()
		case 2:
			m.DeviceId = s.text()
		case 3:
			for range s.array {
				m.Resume = append(m.Resume, s.position())
			}
		case 4:
			m.Start = clientv1.Start(s.enum(clientv1.Start_value, clientv1.Start_name))
		case 5:
			m.Accepted = s.bool()
		case 6:
			m.NoReceipts = s.bool()
		case 7:
			m.Client = s.text()
		}
	}
	return m
}

func (s *scanner) position() *clientv1.Position {
	m := &clientv1.Position{}
	for field := range s.object(positionNames) {
		switch field {
		case 1:
			m.ConversationId = s.text()
		case 2:
			m.Seq = s.uint64()
		}
	}
	return m
}

func (s *scanner) submit() *clientv1.Submit {
	m := &clientv1.Submit{}
	for field := range s.object(submitNames) {
		switch field {
		case 1:
			m.ConversationId = s.text()
		case 2:
			m.CommandId = s.text()
		case 3:
			m.Body = s.body()
		case 4:
			m.Traceparent = s.text()
		}
	}
	return m
}

func (s *scanner) read() *clientv1.Read {
	m := &clientv1.Read{}
	for field := range s.object(readNames) {
		switch field {
		case 1:
			m.ConversationId = s.text()
		case 2:
			m.After = s.uint64()
		case 3:
			m.Before = s.uint64()
		case 4:
			m.Limit = s.uint32()
		case 5:
			m.Backward = s.bool()
		}
	}
	return m
}

func (s *scanner) listConversations() *clientv1.ListConversations {
	m := &clientv1.ListConversations{}
	for field := range s.object(listConversationsNames) {
		switch field {
		case 1:
			m.After = s.text()
		case 2:
			m.Limit = s.uint32()
		}
	}
	return m
}

func (s *scanner) listMembers() *clientv1.ListMembers {
	m := &clientv1.ListMembers{}
	for field := range s.object(listMembersNames) {
		switch field {
		case 1:
			m.ConversationId = s.text()
		case 2:
			m.After = s.text()
		case 3:
			m.Limit = s.uint32()
		}
	}
	return m
}

func (s *scanner) ack() *clientv1.Ack {
	m := &clientv1.Ack{}
	for range s.object(ackNames) {
		for range s.array {
			position := &clientv1.AckPosition{}
			for field := range s.object(ackPositionNames) {
				switch field {
				case 1:
					position.ConversationId = s.text()
				case 2:
					position.Delivered = s.uint64()
				case 3:
					position.Read = s.uint64()
				}
			}
			m.Positions = append(m.Positions, position)
		}
	}
	return m
}

// body is also part of events, so it is decoded strictly here and leniently there.
func (s *scanner) body() *conversationv1.Body {
	m := &conversationv1.Body{}
	for field := range s.object(bodyNames) {
		if m.Action != nil {
			s.fail(secondChoice)
			return m
		}
		switch field {
		case 1:
			m.Action = &conversationv1.Body_Create{Create: s.create()}
		case 2:
			m.Action = &conversationv1.Body_Message{Message: s.message()}
		case 3:
			action := &conversationv1.AddMembers{}
			for range s.object(addMembersNames) {
				action.Members = s.texts()
			}
			m.Action = &conversationv1.Body_AddMembers{AddMembers: action}
		case 4:
			action := &conversationv1.RemoveMember{}
			for range s.object(removeMemberNames) {
				action.Member = s.text()
			}
			m.Action = &conversationv1.Body_RemoveMember{RemoveMember: action}
		case 5:
			for range s.object(leaveNames) {
			}
			m.Action = &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}
		case 6:
			action := &conversationv1.Rename{}
			for range s.object(renameNames) {
				action.Name = s.text()
			}
			m.Action = &conversationv1.Body_Rename{Rename: action}
		}
	}
	return m
}

func (s *scanner) create() *conversationv1.Create {
	m := &conversationv1.Create{}
	for field := range s.object(createNames) {
		switch field {
		case 1:
			m.Kind = conversationv1.Kind(s.enum(conversationv1.Kind_value, conversationv1.Kind_name))
		case 2:
			m.Name = s.text()
		case 3:
			m.Members = s.texts()
		}
	}
	return m
}

func (s *scanner) message() *conversationv1.Message {
	m := &conversationv1.Message{}
	for field := range s.object(messageNames) {
		switch field {
		case 1:
			m.Text = s.text()
		case 2:
			m.ReplyTo = s.uint64()
		case 3:
			m.Metadata = s.textMap()
		}
	}
	return m
}
