package store

import (
	"encoding/binary"
	"hash"
	"hash/fnv"
	"slices"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

const (
	// maxRecent is the maximum number of recently changed memberships of one user that CompareMemberships returns.
	maxRecent = MaxPage
	// maxRecentTogether is the number of memberships at which an answer of CompareMemberships is full.
	maxRecentTogether = 5000
)

// Memberships reads the memberships of users in order of user, conversation and joined_seq.
type Memberships interface {
	// All passes every membership of the users to take.
	All(users []string, take func(user string, m *historyv1.Membership)) error
	// Recent returns at most limit memberships of one user that began or ended at or after a time, Unix ms.
	Recent(user string, sinceMs int64, limit int) ([]*historyv1.Membership, error)
}

// CompareMemberships answers a CompareMembershipsRequest. It reads the digest of a user before the changes, so no change
// is missed: a change between both reads makes the next digest differ.
func CompareMemberships(request *historyv1.CompareMembershipsRequest, from Memberships) (*historyv1.CompareMembershipsResponse, error) {
	users, known, digests := make([]string, 0, len(request.GetUsers())), map[string]uint64{}, map[string]digest{}
	for _, user := range request.GetUsers() {
		id := user.GetUserId()
		if _, twice := digests[id]; !twice {
			users, digests[id] = append(users, id), newDigest()
		}
		known[id] = user.GetDigest()
	}
	if err := from.All(users, func(user string, m *historyv1.Membership) { digests[user].add(m) }); err != nil {
		return nil, err
	}
	slices.Sort(users)
	response, together := &historyv1.CompareMembershipsResponse{}, 0
	for _, user := range users {
		sum := digests[user].sum()
		if sum == known[user] {
			continue
		}
		if together >= maxRecentTogether {
			response.More = true
			break
		}
		recent, err := from.Recent(user, request.GetSinceMs(), maxRecent+1)
		if err != nil {
			return nil, err
		}
		changed := &historyv1.ChangedMemberships{UserId: user, Digest: sum, Memberships: recent, More: len(recent) > maxRecent}
		changed.Memberships = recent[:min(len(recent), maxRecent)]
		together += len(changed.GetMemberships())
		response.Users = append(response.Users, changed)
	}
	return response, nil
}

// digest is a hash of a user's memberships. Services compute the same digest if their databases contain the same
// memberships.
type digest struct{ hash hash.Hash64 }

func newDigest() digest { return digest{fnv.New64a()} }

func (d digest) add(m *historyv1.Membership) {
	row := make([]byte, 0, 64)
	row = append(row, m.GetConversationId()...)
	row = binary.BigEndian.AppendUint64(row, m.GetJoinedSeq())
	row = binary.BigEndian.AppendUint64(row, m.GetLeftSeq())
	_, _ = d.hash.Write(row) // never fails
}

func (d digest) sum() uint64 { return max(d.hash.Sum64(), 1) }
