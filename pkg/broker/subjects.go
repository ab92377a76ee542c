package broker

import (
	"strconv"
	"strings"

	"github.com/runnelhq/runnel/pkg/ids"
)

const (
	// JoinedSubject carries brokerv1.Joined.
	JoinedSubject = "joined"
	// ReleasedSubject carries an empty message: it only wakes workers that look for free partitions.
	ReleasedSubject = "lease.released"
	// RevokedSubject carries brokerv1.Revoked.
	RevokedSubject = "revoked"

	livePrefix, resultPrefix = "live.", "result."
)

// StreamName is the name of a partition's stream.
func StreamName(partition ids.Partition) string { return "IN_" + strconv.Itoa(int(partition)) }

// CommandSubject carries the brokerv1.Command messages of a partition.
func CommandSubject(partition ids.Partition) string { return "in." + strconv.Itoa(int(partition)) }

// ServerSubject carries those commands of a partition whose sender is conversation.ServerUser. NATS lets only delivery publish to it.
// Workers take such a command from nowhere else.
func ServerSubject(partition ids.Partition) string { return CommandSubject(partition) + serverSuffix }

// IsServerSubject reports whether a subject is that of commands of internal services.
func IsServerSubject(subject string) bool { return strings.HasSuffix(subject, serverSuffix) }

const serverSuffix = ".server"

// AckSubject carries brokerv1.Acks for the owner of a partition.
func AckSubject(partition ids.Partition) string { return "ack." + strconv.Itoa(int(partition)) }

// ResultSubject carries brokerv1.Results for one submitter.
func ResultSubject(inbox string) string { return resultPrefix + inbox }

// GatewayInbox is the inbox for the outcomes of commands that a gateway submits. The prefix separates what gateways may receive
// from what others may: see deploy/nats.
func GatewayInbox(id string) string { return "gateway." + id }

// LiveSubject carries brokerv1.Live of a conversation. The id must be valid (conversation.ValidID): it becomes part of a subject.
func LiveSubject(conversationID ids.Conversation) string { return livePrefix + string(conversationID) }

// ConversationOf is the conversation that a live subject belongs to.
func ConversationOf(liveSubject string) ids.Conversation {
	return ids.Conversation(liveSubject[len(livePrefix):])
}
