package stream

import (
	"sort"

	"github.com/runnelhq/runnel/pkg/chain"
)

// trailNewest is the number of newest events that a trail keeps without a gap.
const trailNewest = 32

// mark identifies an event that the client had: its seq and the beginning of its hash.
type mark struct {
	seq  uint64
	hash [chain.PrefixSize]byte
}

// trail remembers some of the events that the client had of one conversation. After the server's log went back, it is
// used to find the last common event. It keeps the newest 32 events. Before them it keeps two to four events each time
// the distance to the newest doubles. The zero value is empty.
type trail struct {
	marks []mark // by rising seq
	limit int
}

// add remembers an event. It ignores an event whose hash is not known.
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

// thin drops old marks. A mark at some distance from the newest stays if its seq is a multiple of half that distance,
// rounded down to a power of two. A mark that was dropped once would also be dropped at every greater distance.
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

// below returns the number of marks with a seq up to seq.
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

// cut forgets the marks above a seq.
func (t *trail) cut(seq uint64) { t.marks = t.marks[:t.below(seq)] }

// is reports whether the marked event has this hash.
func (m *mark) is(hash []byte) bool {
	return len(hash) >= chain.PrefixSize && m.hash == [chain.PrefixSize]byte(hash)
}
