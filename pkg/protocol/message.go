package protocol

import clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

// NewLimits returns the limits of this package in the form of Connected. Limits that depend on the gateway's
// configuration are not set: the numbers per user, and the rates.
func NewLimits() *clientv1.Limits {
	return &clientv1.Limits{
		MaxFrameBytes: MaxFrameBytes, MaxConnectBytes: MaxConnectBytes, MaxFrames: MaxFrames, MaxOpenRequests: MaxOpenRequests,
		MaxTokenBytes: MaxTokenBytes, MaxClientNameBytes: MaxClientNameBytes, MaxResumePositions: MaxResumePositions,
		MaxIdBytes: MaxIDBytes, MaxAttempt: MaxAttempt, MaxTextBytes: MaxTextBytes, MaxMetadataEntries: MaxMetadataEntries,
		MaxMetadataKeyBytes: MaxMetadataKeyBytes, MaxMetadataValueBytes: MaxMetadataValueBytes, MaxNameBytes: MaxNameBytes,
		MaxMembers: MaxMembers, MaxMembersPerAdd: MaxMembersPerAdd, MaxEmojiBytes: MaxEmojiBytes,
		MaxReactionsPerUser: MaxReactionsPerUser, MaxAckPositions: MaxAckPositions, MaxPage: MaxPage, MaxMessagesPage: MaxMessagesPage,
	}
}
