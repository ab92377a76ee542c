package broker

import (
	"strconv"
	"strings"

	"github.com/runnelhq/runnel/pkg/ids"
)

const (
	// JoinedSubject is the subject of brokerv1.Joined messages.
	JoinedSubject = "joined"
	// ReleasedSubject is the subject of empty messages that wake workers which look for free partitions.
	ReleasedSubject = "lease.released"
	// RevokedSubject is the subject of brokerv1.Revoked messages.
	RevokedSubject = "revoked"

	livePrefix, resultPrefix = "live.", "result."
)

// StreamName is the name of a partition's stream.
func StreamName(partition ids.Partition) string { return "IN_" + strconv.Itoa(int(partition)) }

// CommandSubject is the subject of a partition's brokerv1.Command messages.
func CommandSubject(partition ids.Partition) string { return "in." + strconv.Itoa(int(partition)) }

// ServerSubject is the subject of a partition's commands whose sender is conversation.ServerUser. NATS lets only delivery
// publish to it. Workers accept such commands only from this subject.
func ServerSubject(partition ids.Partition) string { return CommandSubject(partition) + serverSuffix }

// IsServerSubject reports whether a subject is for commands of internal services.
func IsServerSubject(subject string) bool { return strings.HasSuffix(subject, serverSuffix) }

const serverSuffix = ".server"

// AckSubject is the subject of brokerv1.Acks messages to the owner of a partition.
func AckSubject(partition ids.Partition) string { return "ack." + strconv.Itoa(int(partition)) }

// ResultSubject is the subject of brokerv1.Results messages to one submitter.
func ResultSubject(inbox string) string { return resultPrefix + inbox }

// GatewayInbox is the inbox for outcomes of the commands that a gateway submits. NATS permissions use the prefix to
// separate the gateways' inboxes from those of other services: see deploy/nats.
func GatewayInbox(id string) string { return "gateway." + id }

// LiveSubject is the subject of a conversation's brokerv1.Live messages. The id must be valid (conversation.ValidID),
// because it becomes part of a subject.
func LiveSubject(conversationID ids.Conversation) string { return livePrefix + string(conversationID) }

// ConversationOf returns the conversation of a live subject.
func ConversationOf(liveSubject string) ids.Conversation {
	return ids.Conversation(liveSubject[len(livePrefix):])
}
