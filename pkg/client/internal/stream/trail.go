package stream

import (
	"sort"

	"github.com/runnelhq/runnel/pkg/chain"
)

// trailNewest is how many of the newest events a trail has without a gap.
const trailNewest = 32

// mark names an event that the client had: its seq and the beginning of its hash.
type mark struct {
	seq  uint64
	hash [chain.PrefixSize]byte
}

// trail remembers some of the events that the client had of one conversation, to find the last one in common with a server whose
// log went back. It keeps the newest 32 events, and before them two to four each time the distance to the newest doubles. The
// zero value is empty.
type trail struct {
	marks []mark // by rising seq
	limit int
}

// add remembers an event. One whose hash is not known is left out.
func (t *trail) add(seq uint64, hash []byte) {
	if len(hash) < chain.PrefixSize || (len(t.marks) > 0 && seq <= t.newest().seq) {
		return
	}
	t.marks = append(t.marks, mark{seq: seq, hash: [chain.PrefixSize]byte(hash)})
	if len(t.marks) >= max(t.limit, 2*trailNewest) {
		t.thin()
		t.limit = len(t.marks) + trailNewest
	}
}

// thin drops old marks. A mark at some distance stays if its seq is a multiple of half that distance, rounded down to a power of
// two. So a dropped mark would not be kept later either.
func (t *trail) thin() {
	newest, kept := t.newest().seq, t.marks[:0]
	for _, m := range t.marks {
		step := uint64(1)
		for distance := newest - m.seq; distance >= trailNewest && 4*step <= distance; {
			step *= 2
		}
		if m.seq%step == 0 {
			kept = append(kept, m)
		}
	}
	t.marks = kept
}

func (t *trail) empty() bool { return len(t.marks) == 0 }

func (t *trail) newest() mark { return t.marks[len(t.marks)-1] }

// below is the number of marks with a seq up to that one.
func (t *trail) below(seq uint64) int {
	return sort.Search(len(t.marks), func(i int) bool { return t.marks[i].seq > seq })
}

// at returns the mark of a seq; nil for none.
func (t *trail) at(seq uint64) *mark {
	if n := t.below(seq); n > 0 && t.marks[n-1].seq == seq {
		return &t.marks[n-1]
	}
	return nil
}

// cut forgets what lies above a seq.
func (t *trail) cut(seq uint64) { t.marks = t.marks[:t.below(seq)] }

// is reports whether an event with that hash is the marked one.
func (m *mark) is(hash []byte) bool {
	return len(hash) >= chain.PrefixSize && m.hash == [chain.PrefixSize]byte(hash)
}
