package client

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Limits returns a copy of the limits of the current or latest gateway. Before the first connection, and for limits that
// an older gateway does not report, it returns the limits of the protocol. A request that exceeds a limit is not sent: it
// ends with the *RefusedError that the gateway would answer. The client does not check the rates, or the numbers of
// connections, conversations, members and reactions. The gateway and the conversation enforce them.
func (c *Client) Limits() *clientv1.Limits {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return proto.CloneOf(c.session.limits)
}

// limitsOf returns the limits that apply to a connection.
func limitsOf(connected *clientv1.Connected) *clientv1.Limits {
	limits := protocol.NewLimits()
	if given := connected.GetMaxFrameBytes(); given > 0 {
		limits.MaxFrameBytes = given
	}
	proto.Merge(limits, connected.GetLimits()) // a limit of 0 is not set
	return limits
}

// checkLimits returns an error for a request that exceeds a limit of the gateway. Limits that depend on a member's rights
// or on the conversation are not checked, because only the conversation knows its state.
func checkLimits(limits *clientv1.Limits, f *clientv1.ClientFrame) error {
	switch r := f.GetRequest().(type) {
	case *clientv1.ClientFrame_Submit:
		return checkBody(limits, r.Submit)
	case *clientv1.ClientFrame_Read:
		return above("read.limit", "", r.Read.GetLimit(), limits.GetMaxPage())
	case *clientv1.ClientFrame_ReadMessages:
		return above("read_messages.limit", "", r.ReadMessages.GetLimit(), limits.GetMaxMessagesPage())
	}
	return nil
}

func checkBody(limits *clientv1.Limits, submit *clientv1.Submit) error {
	if err := above("submit.attempt", "; choose a new command id", submit.GetAttempt(), limits.GetMaxAttempt()); err != nil {
		return err
	}
	switch action := submit.GetBody().GetAction().(type) {
	case *conversationv1.Body_Message:
		return checkContent(limits, "submit.body.message", action.Message.GetText(), action.Message.GetMetadata())
	case *conversationv1.Body_Edit:
		return checkContent(limits, "submit.body.edit", action.Edit.GetText(), action.Edit.GetMetadata())
	case *conversationv1.Body_Create:
		if err := above("submit.body.create.members", " entries", len(action.Create.GetMembers()), limits.GetMaxMembers()-1); err != nil {
			return err
		}
		return above("submit.body.create.name", " bytes", len(action.Create.GetName()), limits.GetMaxNameBytes())
	case *conversationv1.Body_AddMembers:
		return above("submit.body.add_members.members", " entries", len(action.AddMembers.GetMembers()), limits.GetMaxMembersPerAdd())
	case *conversationv1.Body_Rename:
		return above("submit.body.rename.name", " bytes", len(action.Rename.GetName()), limits.GetMaxNameBytes())
	case *conversationv1.Body_React:
		return above("submit.body.react.emoji", " bytes", len(action.React.GetEmoji()), limits.GetMaxEmojiBytes())
	}
	return nil
}

func checkContent(limits *clientv1.Limits, field, text string, metadata map[string]string) error {
	if err := above(field+".text", " bytes", len(text), limits.GetMaxTextBytes()); err != nil {
		return err
	}
	if err := above(field+".metadata", " entries", len(metadata), limits.GetMaxMetadataEntries()); err != nil {
		return err
	}
	for key, value := range metadata {
		if err := above(field+".metadata", " bytes in a key", len(key), limits.GetMaxMetadataKeyBytes()); err != nil {
			return err
		}
		if err := above(field+".metadata."+key, " bytes", len(value), limits.GetMaxMetadataValueBytes()); err != nil {
			return err
		}
	}
	return nil
}

// above returns an error if the size or value of a field exceeds its limit.
func above[N int | uint32](field, unit string, n N, most uint32) error {
	if uint64(n) <= uint64(most) {
		return nil
	}
	return &RefusedError{
		Code: conversationv1.ErrorCode_ERROR_CODE_INVALID, Field: field, Message: fmt.Sprintf("must be at most %d%s", most, unit),
	}
}
