package history

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/pkg/rpc"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// maxEffects is the maximum number of effects of one append.
	maxEffects = 8 * rpc.MaxItems
	// maxUsers is above the maximum number of members that one event can add.
	maxUsers = 100_000
	// maxTextBytes is above the size of any name, emoji or error text.
	maxTextBytes = 4096
)

var errNewerEffect = errors.New("an append or an effect of it is newer than this build of the history service: install the later version of it everywhere")

// checkKnown returns errNewerEffect if an append has a field that this build does not know, because the field would be
// lost silently. The command is valid, so the error must not be an invalid argument, which would make it a dead letter.
// Unknown fields in bodies are not checked: bodies are bytes and are stored unchanged.
func checkKnown(request *historyv1.AppendRequest) error {
	newer := isNewer(request) || isNewer(request.GetExpected()) || isNewer(request.GetNext())
	for _, event := range request.GetEvents() {
		newer = newer || isNewer(event)
	}
	for _, effect := range request.GetEffects() {
		newer = newer || conversation.HasUnknownFields(effect.ProtoReflect())
	}
	for _, refusal := range request.GetRefusals() {
		newer = newer || conversation.HasUnknownFields(refusal.ProtoReflect())
	}
	for _, letter := range request.GetDeadLetters() {
		newer = newer || isNewer(letter)
	}
	if newer {
		return errNewerEffect
	}
	return nil
}

// isNewer reports whether a message without nested messages has an unknown field.
func isNewer(message proto.Message) bool { return len(message.ProtoReflect().GetUnknown()) > 0 }

// checkEffects checks that every effect has its required fields, with values that databases accept. It does not check the
// meaning of an effect, which the rules of its kind have decided.
func checkEffects(request *historyv1.AppendRequest) error {
	if len(request.GetEffects()) > maxEffects {
		return store.Invalid("effects", "must be at most %d", maxEffects)
	}
	for i, effect := range request.GetEffects() {
		if effect.GetEffect() == nil {
			return errNewerEffect
		}
		if int(effect.GetEvent()) >= len(request.GetEvents()) {
			return store.Invalid(fmt.Sprintf("effects[%d].event", i), "must be the index of an event")
		}
		if field, rule := checkEffect(effect); rule != "" {
			return store.Invalid(fmt.Sprintf("effects[%d].%s", i, field), "%s", rule)
		}
	}
	return nil
}

func checkEffect(effect *historyv1.Effect) (field, rule string) {
	switch e := effect.GetEffect().(type) {
	case *historyv1.Effect_CreateConversation:
		if e.CreateConversation.GetKind() == 0 {
			return "create_conversation.kind", "must be set"
		}
	case *historyv1.Effect_SetName:
		switch name := e.SetName; {
		case !storable(name.GetName()):
			return "set_name.name", "must be at most 4096 bytes of UTF-8 without NUL"
		case name.GetSeq() == 0 || name.GetSeq() > maxNumber || !conversation.ValidSender(name.GetSender()) || name.GetTimeMs() < 0:
			return "set_name", "must name the event that the name comes from"
		}
	case *historyv1.Effect_BeginMemberships:
		if len(e.BeginMemberships.GetUserIds()) > maxUsers {
			return "begin_memberships.user_ids", "must be at most 100000"
		}
		for _, user := range e.BeginMemberships.GetUserIds() {
			if !conversation.ValidUser(user) {
				return "begin_memberships.user_ids", "must be user ids"
			}
		}
	case *historyv1.Effect_EndMembership:
		if !conversation.ValidUser(e.EndMembership.GetUserId()) {
			return "end_membership.user_id", "is not a user id"
		}
	default:
		return checkViewEffect(effect)
	}
	return "", ""
}

func checkViewEffect(effect *historyv1.Effect) (field, rule string) {
	switch e := effect.GetEffect().(type) {
	case *historyv1.Effect_PutMessage:
		row := e.PutMessage
		if row.GetSeq() == 0 || max(row.GetSeq(), row.GetEditSeq(), row.GetDeletedSeq(), row.GetLastReplySeq()) > maxNumber {
			return "put_message", "must have seqs of 1 to 2^63-1"
		}
	case *historyv1.Effect_PutReaction:
		switch reaction := e.PutReaction; {
		case reaction.GetTarget() == 0 || reaction.GetSeq() == 0 || max(reaction.GetTarget(), reaction.GetSeq()) > maxNumber:
			return "put_reaction", "must have seqs of 1 to 2^63-1"
		case !conversation.ValidSender(reaction.GetUserId()):
			return "put_reaction.user_id", "is not a user id"
		case reaction.GetEmoji() == "" || !storable(reaction.GetEmoji()):
			return "put_reaction.emoji", "must be 1 to 4096 bytes of UTF-8 without NUL"
		}
	case *historyv1.Effect_DropReactions:
		if drop := e.DropReactions; drop.GetTarget() == 0 || max(drop.GetTarget(), drop.GetSeq()) > maxNumber {
			return "drop_reactions", "must have seqs of 1 to 2^63-1"
		}
	case *historyv1.Effect_EraseEvents:
		return checkErase(e.EraseEvents)
	}
	return "", ""
}

func checkErase(erase *historyv1.EraseEvents) (field, rule string) {
	switch {
	case len(erase.GetSeqs()) == 0 && erase.GetSender() == "" && erase.GetBeforeMs() <= 0:
		return "erase_events", "must name seqs, a sender or a time"
	case len(erase.GetSeqs()) > protocol.MaxEraseSeqs:
		return "erase_events.seqs", fmt.Sprintf("must be at most %d", protocol.MaxEraseSeqs)
	case erase.GetSender() != "" && !conversation.ValidSender(erase.GetSender()):
		return "erase_events.sender", "is not a user id"
	case len(erase.GetKinds()) == 0 || len(erase.GetKinds()) > rpc.MaxItems:
		return "erase_events.kinds", fmt.Sprintf("must be 1 to %d", rpc.MaxItems)
	case erase.GetBelow() == 0 || erase.GetBelow() > maxNumber:
		return "erase_events.below", "must be 1 to 2^63-1"
	}
	for _, seq := range erase.GetSeqs() {
		if seq == 0 || seq > maxNumber {
			return "erase_events.seqs", "must be 1 to 2^63-1"
		}
	}
	return "", ""
}

// checkRefusals checks the refusals of an append.
func (s *Server) checkRefusals(request *historyv1.AppendRequest) error {
	if err := checkCount("refusals", len(request.GetRefusals())); err != nil {
		return err
	}
	for i, refusal := range request.GetRefusals() {
		field, rule := checkKey(refusal.GetCommand())
		switch {
		case rule != "":
			field = "command." + field
		case conversation.Partition(ids.Conversation(refusal.GetCommand().GetConversationId()), s.store.Partitions()) != ids.Partition(request.GetPartition()):
			field, rule = "command.conversation_id", "belongs to another partition"
		case len(refusal.GetCommitment()) != chain.Size:
			field, rule = "commitment", "must be 32 bytes"
		case refusal.GetError().GetCode() == 0:
			field, rule = "error.code", "must be set"
		case !storable(refusal.GetError().GetMessage()):
			field, rule = "error.message", "must be at most 4096 bytes of UTF-8 without NUL"
		case !storable(refusal.GetError().GetField()):
			field, rule = "error.field", "must be at most 4096 bytes of UTF-8 without NUL"
		case refusal.GetTimeMs() < 0:
			field, rule = "time_ms", "must not be negative"
		}
		if rule != "" {
			return store.Invalid(fmt.Sprintf("refusals[%d].%s", i, field), "%s", rule)
		}
	}
	return nil
}

// storable reports whether every database accepts a text.
func storable(text string) bool {
	return len(text) <= maxTextBytes && utf8.ValidString(text) && !strings.Contains(text, "\x00")
}
