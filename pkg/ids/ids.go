// Package ids contains the types of Runnel's ids and positions, so that the compiler detects arguments in the wrong
// order.
//
// In protobuf messages, ids and positions are plain strings and numbers; code that reads or makes a message converts
// them. A list that is copied from one message to another, such as the members of a group, stays []string or []uint64.
// The types check nothing; pkg/conversation has the rules for their form (ValidID, ValidUser, ValidCommandID). The
// package imports nothing.
package ids

// User identifies a user. A plain id is 1 to 64 characters A-Z a-z 0-9 _ -. If the issuer uses other characters, the id
// is mapped (conversation.MapUser). Commands of the system itself have the sender "@server". Empty means no user.
type User string

// Device identifies an installation of a client of one user, in the form of a user id. Empty means unknown.
type Device string

// Connection identifies a client's connection to a gateway. A gateway chooses it at random when the connection begins.
type Connection string

// Conversation identifies a conversation: a letter for its kind and 26 digits 0-9 a-v. Empty means no conversation, as in
// the command that creates one.
type Conversation string

// Command identifies a command of one sender in one conversation: a UUID in lower case, chosen by the client.
type Command string

// Seq numbers the events of one conversation: 1, 2, 3 and so on. 0 is the position before the first event.
type Seq uint64

// Partition numbers the streams that conversations are divided among, from 0.
type Partition uint32

// Sequence numbers the messages in the stream of a partition, from 1. It starts anew when the stream is replaced.
type Sequence uint64

// Epoch numbers the successive epochs of a partition. It rises whenever sequences may be used again, so that (Epoch,
// Sequence) never repeats in a partition. 0 means none.
type Epoch uint64
