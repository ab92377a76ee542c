package frame

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// What is written here is protobuf JSON as protojson writes it: lowerCamel names, 64-bit integers as strings, bytes as base64,
// enumerations by name, fields at their default left out. It is written by hand where frames are many, because protojson
// takes nine times as long; tests compare the two.

func appendServerJSON(dst []byte, frame *clientv1.ServerFrame) []byte {
	dst = appendUintField(append(dst, '{'), "id", frame.GetId())
	switch m := frame.GetMessage().(type) {
	case *clientv1.ServerFrame_Error:
		dst = appendErrorJSON(appendKey(dst, "error"), m.Error)
	case *clientv1.ServerFrame_Outcome:
		dst = appendOutcomeJSON(appendKey(dst, "outcome"), m.Outcome)
	case *clientv1.ServerFrame_Page:
		dst = appendPageJSON(appendKey(dst, "page"), m.Page)
	case *clientv1.ServerFrame_Event:
		dst = appendEventJSON(appendKey(dst, "event"), m.Event)
	case *clientv1.ServerFrame_Receipt:
		dst = appendReceiptJSON(appendKey(dst, "receipt"), m.Receipt)
	case *clientv1.ServerFrame_Accepted:
		dst = append(appendKey(dst, "accepted"), '{')
		dst = append(appendUintField(dst, "requestId", m.Accepted.GetRequestId()), '}')
	case *clientv1.ServerFrame_Heartbeat:
		dst = appendHeartbeatJSON(appendKey(dst, "heartbeat"), m.Heartbeat)
	case *clientv1.ServerFrame_Connected:
		dst = appendRareJSON(appendKey(dst, "connected"), m.Connected)
	case *clientv1.ServerFrame_Refreshed:
		dst = appendRareJSON(appendKey(dst, "refreshed"), m.Refreshed)
	case *clientv1.ServerFrame_Conversations:
		dst = appendRareJSON(appendKey(dst, "conversations"), m.Conversations)
	case *clientv1.ServerFrame_Members:
		dst = appendRareJSON(appendKey(dst, "members"), m.Members)
	case *clientv1.ServerFrame_TokenExpiring:
		dst = appendRareJSON(appendKey(dst, "tokenExpiring"), m.TokenExpiring)
	case *clientv1.ServerFrame_GoAway:
		dst = appendRareJSON(appendKey(dst, "goAway"), m.GoAway)
	case *clientv1.ServerFrame_Hidden:
		dst = appendRareJSON(appendKey(dst, "hidden"), m.Hidden)
	case *clientv1.ServerFrame_Detached:
		dst = appendRareJSON(appendKey(dst, "detached"), m.Detached)
	case *clientv1.ServerFrame_Attached:
		dst = appendRareJSON(appendKey(dst, "attached"), m.Attached)
	}
	dst = appendTextField(dst, "traceparent", frame.GetTraceparent())
	return append(dst, '}', '\n')
}

func appendClientJSON(dst []byte, frame *clientv1.ClientFrame) []byte {
	dst = appendUintField(append(dst, '{'), "id", frame.GetId())
	switch m := frame.GetRequest().(type) {
	case *clientv1.ClientFrame_Submit:
		dst = append(appendKey(dst, "submit"), '{')
		dst = appendTextField(dst, "conversationId", m.Submit.GetConversationId())
		dst = appendTextField(dst, "commandId", m.Submit.GetCommandId())
		if m.Submit.GetBody() != nil {
			dst = appendBodyJSON(appendKey(dst, "body"), m.Submit.GetBody())
		}
		dst = append(appendTextField(dst, "traceparent", m.Submit.GetTraceparent()), '}')
	case *clientv1.ClientFrame_Ack:
		dst = append(appendKey(dst, "ack"), '{')
		if len(m.Ack.GetPositions()) > 0 {
			dst = append(appendKey(dst, "positions"), '[')
			for _, position := range m.Ack.GetPositions() {
				dst = append(appendComma(dst), '{')
				dst = appendTextField(dst, "conversationId", position.GetConversationId())
				dst = appendUintField(dst, "delivered", position.GetDelivered())
				dst = append(appendUintField(dst, "read", position.GetRead()), '}')
			}
			dst = append(dst, ']')
		}
		dst = append(dst, '}')
	case *clientv1.ClientFrame_Pong:
		dst = append(appendKey(dst, "pong"), '{', '}')
	case *clientv1.ClientFrame_Connect:
		dst = appendRareJSON(appendKey(dst, "connect"), m.Connect)
	case *clientv1.ClientFrame_Refresh:
		dst = appendRareJSON(appendKey(dst, "refresh"), m.Refresh)
	case *clientv1.ClientFrame_Read:
		dst = appendRareJSON(appendKey(dst, "read"), m.Read)
	case *clientv1.ClientFrame_ListConversations:
		dst = appendRareJSON(appendKey(dst, "listConversations"), m.ListConversations)
	case *clientv1.ClientFrame_ListMembers:
		dst = appendRareJSON(appendKey(dst, "listMembers"), m.ListMembers)
	}
	return append(dst, '}', '\n')
}

// appendRareJSON is for messages that come a few times in the life of a connection. protojson fails only on text that is
// not UTF-8; the frame then goes out without the message's content, which the other side will see is missing.
func appendRareJSON(dst []byte, m proto.Message) []byte {
	out, err := protojson.MarshalOptions{}.MarshalAppend(dst, m)
	if err != nil {
		return append(dst, '{', '}')
	}
	return out
}

func appendEventJSON(dst []byte, e *conversationv1.Event) []byte {
	dst = append(dst, '{')
	dst = appendTextField(dst, "conversationId", e.GetConversationId())
	dst = appendUintField(dst, "seq", e.GetSeq())
	dst = appendIntField(dst, "timeMs", e.GetTimeMs())
	dst = appendTextField(dst, "sender", e.GetSender())
	dst = appendTextField(dst, "commandId", e.GetCommandId())
	dst = appendEnumField(dst, "kind", int32(e.GetKind()), conversationv1.EventKind_name)
	if e.GetBody() != nil {
		dst = appendBodyJSON(appendKey(dst, "body"), e.GetBody())
	}
	dst = appendBytesField(dst, "salt", e.GetSalt())
	dst = appendBytesField(dst, "commitment", e.GetCommitment())
	dst = appendBytesField(dst, "prevHash", e.GetPrevHash())
	dst = appendBytesField(dst, "hash", e.GetHash())
	return append(dst, '}')
}

func appendBodyJSON(dst []byte, body *conversationv1.Body) []byte {
	dst = append(dst, '{')
	switch action := body.GetAction().(type) {
	case *conversationv1.Body_Create:
		dst = append(appendKey(dst, "create"), '{')
		dst = appendEnumField(dst, "kind", int32(action.Create.GetKind()), conversationv1.Kind_name)
		dst = appendTextField(dst, "name", action.Create.GetName())
		dst = append(appendTextsField(dst, "members", action.Create.GetMembers()), '}')
	case *conversationv1.Body_Message:
		dst = append(appendKey(dst, "message"), '{')
		dst = appendTextField(dst, "text", action.Message.GetText())
		dst = appendUintField(dst, "replyTo", action.Message.GetReplyTo())
		if len(action.Message.GetMetadata()) > 0 {
			dst = append(appendKey(dst, "metadata"), '{')
			for key, value := range action.Message.GetMetadata() {
				dst = append(appendText(appendComma(dst), key), ':')
				dst = appendText(dst, value)
			}
			dst = append(dst, '}')
		}
		dst = append(dst, '}')
	case *conversationv1.Body_AddMembers:
		dst = append(appendKey(dst, "addMembers"), '{')
		dst = append(appendTextsField(dst, "members", action.AddMembers.GetMembers()), '}')
	case *conversationv1.Body_RemoveMember:
		dst = append(appendKey(dst, "removeMember"), '{')
		dst = append(appendTextField(dst, "member", action.RemoveMember.GetMember()), '}')
	case *conversationv1.Body_Leave:
		dst = append(appendKey(dst, "leave"), '{', '}')
	case *conversationv1.Body_Rename:
		dst = append(appendKey(dst, "rename"), '{')
		dst = append(appendTextField(dst, "name", action.Rename.GetName()), '}')
	}
	return append(dst, '}')
}

func appendErrorJSON(dst []byte, e *conversationv1.Error) []byte {
	dst = append(dst, '{')
	dst = appendEnumField(dst, "code", int32(e.GetCode()), conversationv1.ErrorCode_name)
	dst = appendTextField(dst, "message", e.GetMessage())
	dst = appendTextField(dst, "field", e.GetField())
	return append(appendUint32Field(dst, "retryAfterMs", e.GetRetryAfterMs()), '}')
}

func appendOutcomeJSON(dst []byte, o *conversationv1.Outcome) []byte {
	dst = append(dst, '{')
	dst = appendTextField(dst, "conversationId", o.GetConversationId())
	dst = appendTextField(dst, "commandId", o.GetCommandId())
	dst = appendUintField(dst, "seq", o.GetSeq())
	dst = appendIntField(dst, "timeMs", o.GetTimeMs())
	dst = appendTrueField(dst, "repeated", o.GetRepeated())
	if o.GetError() != nil {
		dst = appendErrorJSON(appendKey(dst, "error"), o.GetError())
	}
	return append(dst, '}')
}

func appendReceiptJSON(dst []byte, r *conversationv1.Receipt) []byte {
	dst = append(dst, '{')
	dst = appendTextField(dst, "conversationId", r.GetConversationId())
	dst = appendUint32Field(dst, "members", r.GetMembers())
	dst = appendStepsField(dst, "delivered", r.GetDelivered())
	dst = appendStepsField(dst, "read", r.GetRead())
	return append(appendIntField(dst, "version", r.GetVersion()), '}')
}

func appendStepsField(dst []byte, key string, steps []*conversationv1.Step) []byte {
	if len(steps) == 0 {
		return dst
	}
	dst = append(appendKey(dst, key), '[')
	for _, step := range steps {
		dst = appendUintField(append(appendComma(dst), '{'), "seq", step.GetSeq())
		dst = append(appendUint32Field(dst, "members", step.GetMembers()), '}')
	}
	return append(dst, ']')
}

func appendPageJSON(dst []byte, page *clientv1.Page) []byte {
	dst = append(dst, '{')
	if len(page.GetEvents()) > 0 {
		dst = append(appendKey(dst, "events"), '[')
		for _, event := range page.GetEvents() {
			dst = appendEventJSON(appendComma(dst), event)
		}
		dst = append(dst, ']')
	}
	if len(page.GetHidden()) > 0 {
		dst = append(appendKey(dst, "hidden"), '[')
		for _, hidden := range page.GetHidden() {
			dst = appendUintField(append(appendComma(dst), '{'), "first", hidden.GetFirst())
			dst = append(appendUintField(dst, "last", hidden.GetLast()), '}')
		}
		dst = append(dst, ']')
	}
	dst = appendUintField(dst, "head", page.GetHead())
	return append(appendTrueField(dst, "more", page.GetMore()), '}')
}

func appendHeartbeatJSON(dst []byte, heartbeat *clientv1.Heartbeat) []byte {
	dst = append(dst, '{')
	if len(heartbeat.GetHeads()) > 0 {
		dst = append(appendKey(dst, "heads"), '[')
		for _, head := range heartbeat.GetHeads() {
			dst = appendTextField(append(appendComma(dst), '{'), "conversationId", head.GetConversationId())
			dst = append(appendUintField(dst, "seq", head.GetSeq()), '}')
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// appendComma separates from what is before, unless that is the beginning of an object or array.
func appendComma(dst []byte) []byte {
	if last := dst[len(dst)-1]; last == '{' || last == '[' {
		return dst
	}
	return append(dst, ',')
}

// appendKey begins a field; keys are ours and need no escaping.
func appendKey(dst []byte, key string) []byte {
	dst = append(append(appendComma(dst), '"'), key...)
	return append(dst, '"', ':')
}

func appendTextField(dst []byte, key, value string) []byte {
	if value == "" {
		return dst
	}
	return appendText(appendKey(dst, key), value)
}

func appendTextsField(dst []byte, key string, values []string) []byte {
	if len(values) == 0 {
		return dst
	}
	dst = append(appendKey(dst, key), '[')
	for _, value := range values {
		dst = appendText(appendComma(dst), value)
	}
	return append(dst, ']')
}

func appendUintField(dst []byte, key string, value uint64) []byte {
	if value == 0 {
		return dst
	}
	dst = append(appendKey(dst, key), '"')
	return append(strconv.AppendUint(dst, value, 10), '"')
}

func appendIntField(dst []byte, key string, value int64) []byte {
	if value == 0 {
		return dst
	}
	dst = append(appendKey(dst, key), '"')
	return append(strconv.AppendInt(dst, value, 10), '"')
}

func appendUint32Field(dst []byte, key string, value uint32) []byte {
	if value == 0 {
		return dst
	}
	return strconv.AppendUint(appendKey(dst, key), uint64(value), 10)
}

func appendTrueField(dst []byte, key string, value bool) []byte {
	if !value {
		return dst
	}
	return append(appendKey(dst, key), "true"...)
}

func appendEnumField(dst []byte, key string, value int32, names map[int32]string) []byte {
	if value == 0 {
		return dst
	}
	dst = appendKey(dst, key)
	name, known := names[value]
	if !known {
		return strconv.AppendInt(dst, int64(value), 10)
	}
	dst = append(append(dst, '"'), name...)
	return append(dst, '"')
}

func appendBytesField(dst []byte, key string, value []byte) []byte {
	if len(value) == 0 {
		return dst
	}
	dst = append(appendKey(dst, key), '"')
	return append(base64.StdEncoding.AppendEncode(dst, value), '"')
}

// appendText quotes text. Bytes that are not UTF-8 become U+FFFD.
func appendText(dst []byte, text string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(text[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, text[start:i]...)
				dst = append(dst, "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, text[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, text[start:]...), '"')
}
