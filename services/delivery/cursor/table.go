package cursor

import (
	"slices"
	"strings"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Table contains the cursors of a conversation's members, and which cursors are ahead of the store. It is a sorted list,
// because most conversations have few members, and very many tables are in memory. The zero value is an empty table. It
// is not safe for concurrent use.
type Table struct {
	rows  []row
	moved int // rows that are ahead of the store
}

type row struct {
	user  ids.User
	at    Position
	moved bool
}

// TableOf makes a table of cursors that equal the store's.
func TableOf(n int, each func(i int) (ids.User, Position)) Table {
	t := Table{rows: make([]row, 0, n)}
	for i := range n {
		user, at := each(i)
		t.rows = append(t.rows, row{user: user, at: at})
	}
	slices.SortFunc(t.rows, func(a, b row) int { return strings.Compare(string(a.user), string(b.user)) })
	t.rows = slices.CompactFunc(t.rows, func(a, b row) bool { return a.user == b.user })
	return t
}

func (t *Table) find(user ids.User) (int, bool) {
	return slices.BinarySearchFunc(t.rows, user, func(r row, user ids.User) int { return strings.Compare(string(r.user), string(user)) })
}

// Len returns the number of members.
func (t *Table) Len() int { return len(t.rows) }

// Moved returns the number of cursors that are ahead of the store.
func (t *Table) Moved() int { return t.moved }

// Add adds a member with a cursor at 0. It returns false if the user is already a member.
func (t *Table) Add(user ids.User) bool {
	i, present := t.find(user)
	if present {
		return false
	}
	t.rows = slices.Insert(t.rows, i, row{user: user})
	return true
}

// Remove removes a member. It returns false if the user is not a member.
func (t *Table) Remove(user ids.User) bool {
	i, present := t.find(user)
	if !present {
		return false
	}
	if t.rows[i].moved {
		t.moved--
	}
	t.rows = slices.Delete(t.rows, i, i+1)
	return true
}

// Advance moves the cursor of a member as Position.Advance does. It returns false if the cursor did not move or the user
// is not a member.
func (t *Table) Advance(user ids.User, delivered, read, head ids.Seq, nowMs int64) bool {
	i, present := t.find(user)
	if !present || !t.rows[i].at.Advance(delivered, read, head, nowMs) {
		return false
	}
	if !t.rows[i].moved {
		t.rows[i].moved = true
		t.moved++
	}
	return true
}

// Collect calls each for every cursor that is ahead of the store. Afterwards it treats these cursors as stored.
func (t *Table) Collect(each func(user ids.User, at Position)) {
	for i := range t.rows {
		if r := &t.rows[i]; r.moved {
			r.moved = false
			t.moved--
			each(r.user, r.at)
		}
	}
}

// Protos returns all cursors in the store's format, ordered by user id.
func (t *Table) Protos() []*conversationv1.Cursor {
	all := make([]*conversationv1.Cursor, len(t.rows))
	for i := range t.rows {
		all[i] = t.rows[i].at.Proto(t.rows[i].user)
	}
	return all
}
