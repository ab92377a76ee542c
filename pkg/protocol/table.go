package protocol

import (
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// Unit is the unit of a limit.
type Unit string

// The units.
const (
	Bytes Unit = "bytes"
	Items Unit = "items"
	// Number is a value that is compared, and counts nothing.
	Number Unit = "number"
)

// Part is the part of the server that checks a limit.
type Part string

// The parts.
const (
	// Gateway checks the limit before it accepts a request.
	Gateway Part = "gateway"
	// Delivery checks the limit when it decides the command, because the result depends on the conversation.
	Delivery Part = "delivery"
)

// Limit describes one constant of this package.
type Limit struct {
	// Name is the constant's name in snake case.
	Name  string
	Value uint64
	Unit  Unit
	By    Part
	// Error is the error code for a request that exceeds the limit; ERROR_CODE_UNSPECIFIED if there is none.
	Error conversationv1.ErrorCode
	// Close is the code with which the connection is also closed; 0 if it is not closed.
	Close errcode.CloseCode
	// Doc is a one-sentence description.
	Doc string
}

const (
	none            = conversationv1.ErrorCode_ERROR_CODE_UNSPECIFIED
	invalid         = conversationv1.ErrorCode_ERROR_CODE_INVALID
	limit           = conversationv1.ErrorCode_ERROR_CODE_LIMIT
	rateLimited     = conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED
	unauthenticated = conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED
)

// Limits lists every limit, in the order of limits.go.
var Limits = []Limit{
	{"max_connect_bytes", MaxConnectBytes, Bytes, Gateway, none, errcode.CloseTooLarge, "Largest WebSocket message from a client before it is authenticated."},
	{"max_frame_bytes", MaxFrameBytes, Bytes, Gateway, none, errcode.CloseTooLarge, "Largest WebSocket message from an authenticated client; a gateway may be set to more, see Connected.limits."},
	{"max_frames", MaxFrames, Items, Gateway, invalid, 0, "Frames in one WebSocket message from a client."},
	{"max_open_requests", MaxOpenRequests, Items, Gateway, rateLimited, 0, "Requests that wait for their answer on one connection; submits do not count."},

	{"max_token_bytes", MaxTokenBytes, Bytes, Gateway, unauthenticated, errcode.CloseUnauthenticated, "Longest token."},
	{"max_client_name_bytes", MaxClientNameBytes, Bytes, Gateway, invalid, errcode.CloseProtocol, "Longest Connect.client, in printable ASCII."},
	{"max_resume_positions", MaxResumePositions, Items, Gateway, invalid, errcode.CloseProtocol, "Positions in Connect.resume; a client with more conversations reads what it lacks of the others."},
	{"hash_prefix_bytes", HashPrefixBytes, Bytes, Gateway, invalid, errcode.CloseProtocol, "Length of Position.hash when it is not empty."},
	{"max_connected_conversations", MaxConnectedConversations, Items, Gateway, none, 0, "Conversations in Connected; more says that there are others."},

	{"max_id_bytes", MaxIDBytes, Bytes, Gateway, invalid, 0, "Longest id of a user or device: 1 or more characters A-Z a-z 0-9 _ -, with ~ and two hex digits (0-9 A-F) for each other byte of the name that the issuer uses; clients see ann@x as ann~40x."},
	{"conversation_id_bytes", ConversationIDBytes, Bytes, Gateway, invalid, 0, "Length of a conversation id: a letter a-z and 26 digits 0-9 a-v."},
	{"command_id_bytes", CommandIDBytes, Bytes, Gateway, invalid, 0, "Length of a command id: a UUID version 7 in canonical lower-case form."},
	{"max_seq", MaxSeq, Number, Gateway, invalid, 0, "Highest seq; a client refuses a higher one from a server."},

	{"max_attempt", MaxAttempt, Number, Gateway, invalid, 0, "Highest Submit.attempt."},
	{"max_text_bytes", MaxTextBytes, Bytes, Gateway, invalid, 0, "Longest text of a message, in UTF-8."},
	{"max_metadata_entries", MaxMetadataEntries, Items, Gateway, invalid, 0, "Entries of the metadata of a message."},
	{"max_metadata_key_bytes", MaxMetadataKeyBytes, Bytes, Gateway, invalid, 0, "Longest key of a metadata entry: 1 or more characters A-Z a-z 0-9 _ . -."},
	{"max_metadata_value_bytes", MaxMetadataValueBytes, Bytes, Gateway, invalid, 0, "Longest value of a metadata entry, in UTF-8."},
	{"max_name_bytes", MaxNameBytes, Bytes, Gateway, invalid, 0, "Longest name of a group, in UTF-8."},
	{"max_members", MaxMembers, Items, Delivery, limit, 0, "Members of a group, its creator included; a create that names more is refused as invalid by the gateway."},
	{"max_members_per_add", MaxMembersPerAdd, Items, Gateway, invalid, 0, "Users in one add_members."},
	{"max_emoji_bytes", MaxEmojiBytes, Bytes, Gateway, invalid, 0, "Longest reaction, in UTF-8."},
	{"max_reactions_per_user", MaxReactionsPerUser, Items, Delivery, limit, 0, "Reactions of one user to one message."},
	{"max_erase_seqs", MaxEraseSeqs, Items, Delivery, invalid, 0, "Seqs in one erase, which only internal services may ask for."},

	{"max_ack_positions", MaxAckPositions, Items, Gateway, invalid, 0, "Positions in one Ack."},
	{"max_page", MaxPage, Items, Gateway, invalid, 0, "Highest limit of read, list_conversations and list_members."},
	{"default_events_page", DefaultEventsPage, Items, Gateway, none, 0, "Events in a page when read gives no limit."},
	{"default_list_page", DefaultListPage, Items, Gateway, none, 0, "Conversations or members in a page when the list request gives no limit."},
	{"max_messages_page", MaxMessagesPage, Items, Gateway, invalid, 0, "Highest limit of read_messages."},
	{"default_messages_page", DefaultMessagesPage, Items, Gateway, none, 0, "Messages in a page when read_messages gives no limit."},
	{"max_reaction_summaries", MaxReactionSummaries, Items, Gateway, none, 0, "Different reactions in MessageView.reactions, most frequent first."},
}
