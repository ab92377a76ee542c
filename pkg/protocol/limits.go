package protocol

// Sizes of WebSocket messages from a client. Everything else that this package allows fits into them, in both encodings.
const (
	// MaxConnectBytes is the maximum number of bytes of a message before the connection is authenticated. It is smaller than MaxFrameBytes,
	// because anybody may send one. The gateway closes with errcode.CloseTooLarge.
	MaxConnectBytes = 64 << 10
	// MaxFrameBytes is the maximum number of bytes of any later message. It is the default of a gateway; one may be set to less, and
	// Connected.max_frame_bytes names its limit. The gateway closes with errcode.CloseTooLarge.
	MaxFrameBytes = 160 << 10
	// MaxFrames is the maximum number of frames of one message. The gateway answers INVALID and handles none of them.
	MaxFrames = 64
)

// Limits of a connect frame. The gateway closes a connection that breaks one.
const (
	// MaxTokenBytes is the maximum number of bytes of a token, in connect and in refresh. The gateway answers a longer one with UNAUTHENTICATED.
	MaxTokenBytes = 8 << 10
	// MaxClientNameBytes is the longest name of a client's software, in bytes. The gateway answers INVALID.
	MaxClientNameBytes = 64
	// MaxResumePositions is the maximum number of resume positions. The gateway answers INVALID. A client with more
	// conversations names some of them; the others begin at their head, and the client reads their missing events.
	MaxResumePositions = 500
	// HashPrefixBytes is how much of an event's hash a resume position contains, in bytes. The gateway answers INVALID.
	HashPrefixBytes = 8
	// MaxConnectedConversations is the most conversations that the answer lists. The client lists the others.
	MaxConnectedConversations = 500
)

// Lengths and ranges of ids and seqs. The gateway answers others with INVALID.
const (
	// MaxIDBytes is the longest id of a user or device, in bytes.
	MaxIDBytes = 64
	// ConversationIDBytes is the length of a conversation id, in bytes.
	ConversationIDBytes = 27
	// CommandIDBytes is the length of a command id, in bytes.
	CommandIDBytes = 36
	// MaxSeq is the highest seq. No log comes near it. Stores keep a seq in 63 bits; the rest is room to add to one.
	MaxSeq = 1<<62 - 1
)

// Limits of a submit. Clients in the field rely on them, so they may be raised, not lowered. The gateway answers INVALID where
// nothing else is said.
const (
	// MaxAttempt is the highest attempt of a command.
	MaxAttempt = 1000
	// MaxTextBytes is the longest text of a message, in bytes of UTF-8.
	MaxTextBytes = 8192
	// MaxMetadataEntries is the maximum number of entries of a message's metadata.
	MaxMetadataEntries = 16
	// MaxMetadataKeyBytes is the longest key of one, in bytes.
	MaxMetadataKeyBytes = 64
	// MaxMetadataValueBytes is the longest value of one, in bytes of UTF-8.
	MaxMetadataValueBytes = 1024
	// MaxNameBytes is the longest name of a group, in bytes of UTF-8.
	MaxNameBytes = 256
	// MaxMembers is the maximum number of members of a group, its creator included. The gateway answers INVALID to a create with more, the
	// delivery service LIMIT to an add_members that would lead to more.
	MaxMembers = 2000
	// MaxMembersPerAdd is the maximum number of users of one add_members.
	MaxMembersPerAdd = 100
	// MaxEmojiBytes is the longest reaction, in bytes of UTF-8.
	MaxEmojiBytes = 64
	// MaxReactionsPerUser is the maximum number of reactions of one user to one message. The delivery service answers LIMIT.
	MaxReactionsPerUser = 12
	// MaxEraseSeqs is the maximum number of seqs of one erase, which only internal services may ask for.
	MaxEraseSeqs = 1000
)

// Limits of acknowledgements and of pages. The gateway answers INVALID.
const (
	// MaxAckPositions is the maximum number of positions of one acknowledgement.
	MaxAckPositions = 1000
	// MaxPage is the maximum number of events of a read, conversations of a list and members of a list that may be asked for.
	MaxPage = 500
	// DefaultEventsPage is the number of events of a read that sets no limit.
	DefaultEventsPage = 50
	// DefaultListPage is the number of conversations or members of a list that sets no limit.
	DefaultListPage = 100
	// MaxMessagesPage is the maximum number of messages of read_messages that may be asked for.
	MaxMessagesPage = 200
	// DefaultMessagesPage is the number of messages of a read_messages that sets no limit.
	DefaultMessagesPage = 50
	// MaxReactionSummaries is the most different reactions that are given for a message; the most frequent ones are.
	MaxReactionSummaries = 50
)
