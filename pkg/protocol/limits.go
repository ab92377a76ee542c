package protocol

// Sizes of WebSocket messages from a client. Messages with all other values at the limits of this package fit into these
// sizes, in both encodings.
const (
	// MaxConnectBytes is the maximum number of bytes of a message before the connection is authenticated. It is smaller
	// than MaxFrameBytes, because anyone may send such a message. The gateway closes with errcode.CloseTooLarge.
	MaxConnectBytes = 64 << 10
	// MaxFrameBytes is the maximum number of bytes of any later message. It is the default of a gateway. A gateway may
	// have a higher limit, which it states in Connected.limits. The gateway closes with errcode.CloseTooLarge.
	MaxFrameBytes = 160 << 10
	// MaxFrames is the maximum number of frames of one message. If there are more, the gateway answers INVALID and
	// handles none of them.
	MaxFrames = 64
	// MaxOpenRequests is the maximum number of unanswered requests on one connection. Submits do not count. The gateway
	// answers further requests with RATE_LIMITED.
	MaxOpenRequests = 4
)

// Limits of a connect frame. If a frame exceeds a limit, the gateway closes the connection.
const (
	// MaxTokenBytes is the maximum number of bytes of a token, in connect and in refresh. The gateway answers a longer one with UNAUTHENTICATED.
	MaxTokenBytes = 8 << 10
	// MaxClientNameBytes is the longest name of a client's software, in bytes. The gateway answers INVALID.
	MaxClientNameBytes = 64
	// MaxResumePositions is the maximum number of resume positions. The gateway answers INVALID. A client with more
	// conversations states the positions of some; the others begin at their head, and the client reads their missing
	// events.
	MaxResumePositions = 500
	// HashPrefixBytes is the number of bytes of an event's hash in a resume position. The gateway answers INVALID.
	HashPrefixBytes = 8
	// MaxConnectedConversations is the maximum number of conversations in the answer. The client lists the remaining
	// ones.
	MaxConnectedConversations = 500
)

// Lengths and ranges of ids and seqs. The gateway answers INVALID to other values.
const (
	// MaxIDBytes is the longest id of a user or device, in bytes.
	MaxIDBytes = 64
	// ConversationIDBytes is the length of a conversation id, in bytes.
	ConversationIDBytes = 27
	// CommandIDBytes is the length of a command id, in bytes.
	CommandIDBytes = 36
	// MaxSeq is the highest seq. No log comes near it. Stores keep a seq in 63 bits; the remaining range allows adding to
	// a seq.
	MaxSeq = 1<<62 - 1
)

// Limits of a submit. Existing clients rely on them, so they may be raised, but not lowered. The gateway answers INVALID,
// unless a limit states another answer.
const (
	// MaxAttempt is the highest attempt of a command.
	MaxAttempt = 1000
	// MaxTextBytes is the longest text of a message, in bytes of UTF-8.
	MaxTextBytes = 8192
	// MaxMetadataEntries is the maximum number of entries of a message's metadata.
	MaxMetadataEntries = 16
	// MaxMetadataKeyBytes is the maximum length of a metadata key, in bytes.
	MaxMetadataKeyBytes = 64
	// MaxMetadataValueBytes is the maximum length of a metadata value, in bytes of UTF-8.
	MaxMetadataValueBytes = 1024
	// MaxNameBytes is the longest name of a group, in bytes of UTF-8.
	MaxNameBytes = 256
	// MaxMembers is the maximum number of members of a group, including its creator. The gateway answers INVALID to a
	// create with more. The delivery service answers LIMIT to an add_members that would exceed it.
	MaxMembers = 2000
	// MaxMembersPerAdd is the maximum number of users of one add_members.
	MaxMembersPerAdd = 100
	// MaxEmojiBytes is the longest reaction, in bytes of UTF-8.
	MaxEmojiBytes = 64
	// MaxReactionsPerUser is the maximum number of reactions of one user to one message. The delivery service answers LIMIT.
	MaxReactionsPerUser = 12
	// MaxEraseSeqs is the maximum number of seqs of one erase. Only internal services may send an erase.
	MaxEraseSeqs = 1000
)

// Limits of acknowledgements and of pages. The gateway answers INVALID.
const (
	// MaxAckPositions is the maximum number of positions of one acknowledgement.
	MaxAckPositions = 1000
	// MaxPage is the maximum number of events in a read, of conversations in a list and of members in a list.
	MaxPage = 500
	// DefaultEventsPage is the number of events in a read without a limit.
	DefaultEventsPage = 50
	// DefaultListPage is the number of conversations or members in a list without a limit.
	DefaultListPage = 100
	// MaxMessagesPage is the maximum number of messages in a read_messages.
	MaxMessagesPage = 200
	// DefaultMessagesPage is the number of messages in a read_messages without a limit.
	DefaultMessagesPage = 50
	// MaxReactionSummaries is the maximum number of different reactions listed for a message. The most frequent reactions
	// are listed.
	MaxReactionSummaries = 50
)
