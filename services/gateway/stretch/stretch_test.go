package stretch_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/stretch"
)

// membership is a stretch of the model's log; last is 0 while it lasts.
type membership struct{ from, last ids.Seq }

// log is the model of a conversation, as far as one user is concerned.
type log struct {
	head ids.Seq
	all  []membership
}

func (l *log) present() ids.Seq {
	if n := len(l.all); n > 0 && l.all[n-1].last == 0 {
		return l.all[n-1].from
	}
	return 0
}

// toggle appends an event that begins or ends a membership.
func (l *log) toggle() {
	l.head++
	if l.present() != 0 {
		l.all[len(l.all)-1].last = l.head
	} else {
		l.all = append(l.all, membership{from: l.head})
	}
}

// lastOf returns the last event of a membership so far.
func (l *log) lastOf(m membership) ids.Seq {
	if m.last == 0 {
		return l.head
	}
	return m.last
}

// ended returns the event that began the earliest membership after a seq that has ended; 0 if there is none.
func (l *log) ended(after ids.Seq) ids.Seq {
	for _, m := range l.all {
		if m.from > after && m.last != 0 {
			return m.from
		}
	}
	return 0
}

// page returns at most limit events after a seq, as the user may see them. Those up to old are old by their time.
func (l *log) page(after ids.Seq, limit int, old ids.Seq) *stretch.Page {
	if len(l.all) == 0 {
		return &stretch.Page{}
	}
	head := l.lastOf(l.all[len(l.all)-1])
	var events []stretch.Event
	for _, m := range l.all {
		for seq := max(m.from, after+1); seq <= l.lastOf(m) && len(events) < limit; seq++ {
			events = append(events, stretch.Event{Seq: seq, Begins: seq == m.from, Ends: seq == m.last, Old: seq <= old})
		}
	}
	return &stretch.Page{Known: true, Member: l.present() != 0, Head: head, Stretches: stretch.Of(events, after), Diverged: after > head}
}

// client is what a client was told.
type client struct {
	t        *rapid.T
	log      *log
	open     bool
	has      ids.Seq      // the last event it received
	stays    []membership // the memberships that it was told, in order; last is 0 while it is open
	isResume bool         // it knew the conversation when it connected, and was in the membership that began with first
	first    ids.Seq
}

func (c *client) attach(from ids.Seq) {
	require.False(c.t, c.open, "attached at %d while attached", from)
	require.Greater(c.t, from, c.has, "a membership from before")
	require.True(c.t, slices.ContainsFunc(c.log.all, func(m membership) bool { return m.from == from }), "no membership begins at %d", from)
	c.open, c.has = true, from-1
	c.stays = append(c.stays, membership{from: from})
}

func (c *client) event(seq ids.Seq) {
	require.True(c.t, c.open, "event %d without a membership", seq)
	require.Equal(c.t, c.has+1, seq, "a hole or a repeat")
	require.True(c.t, slices.ContainsFunc(c.log.all, func(m membership) bool { return m.from <= seq && seq <= c.log.lastOf(m) }),
		"event %d is of no membership", seq)
	c.has = seq
}

func (c *client) detach(last ids.Seq) {
	require.True(c.t, c.open, "detached twice")
	require.Equal(c.t, c.has, last, "detached before everything was sent")
	require.True(c.t, slices.ContainsFunc(c.log.all, func(m membership) bool { return m.last == last }), "no membership ends with %d", last)
	c.open = false
	c.stays[len(c.stays)-1].last = last
}

// machine is a session without I/O.
type machine struct {
	*client

	state     stretch.State
	view      stretch.View
	notices   []notice  // under way
	connected ids.Seq   // head when the client connected
	old       ids.Seq   // the last event that is old by its time: those above connected waited in the stream
	noticed   []ids.Seq // memberships that began while the client was connected, as it was noticed before a later one was told
}

// notice says that a membership began with an event; now that it began while the client was connected.
type notice struct {
	seq ids.Seq
	now bool
}

func (m *machine) notice(n notice) {
	if n.now {
		if m.has < n.seq {
			m.noticed = append(m.noticed, n.seq)
		}
		m.state.NoticeNow(n.seq)
	} else {
		m.state.Notice(n.seq)
	}
}

// step carries out one step. history says whether it answers.
func (m *machine) step(answers bool, limit int) {
	step := m.state.Next(m.view)
	switch step.Do {
	case stretch.LookUp:
		if !answers {
			m.view = stretch.View{}
			return
		}
		m.view.Listed, m.view.Present, m.view.Ended = true, m.log.present(), m.log.ended(m.old)
	case stretch.Read:
		if answers {
			m.view = stretch.View{Page: m.log.page(m.state.After(), limit, m.old)}
		}
	case stretch.Attach:
		m.attach(step.From)
	case stretch.Tell:
		if !answers { // only a part could be sent
			step.Last = min(step.Last, m.state.Position()+1)
		}
		for seq := m.has + 1; seq <= step.Last; seq++ {
			m.event(seq)
		}
	case stretch.Hide:
		require.Equal(m.t, m.has+1, step.From)
		m.has = step.Last
	case stretch.Detach:
		m.detach(step.Last)
	case stretch.Subscribe:
		if !m.state.IsOpen() {
			m.attach(step.From)
		}
		require.Equal(m.t, m.has, step.Last)
	case stretch.Again, stretch.Forget:
		m.view = stretch.View{}
	case stretch.Rest, stretch.Skip, stretch.Begin:
	case stretch.Diverge:
		require.Fail(m.t, "nothing diverged")
	}
	if m.state.Done(step); step.Do == stretch.Rest || step.Do == stretch.Subscribe {
		m.view = stretch.View{}
	}
}

// serve lets the subscription send one event.
func (m *machine) serve() {
	if m.has == m.log.head {
		return
	}
	m.event(m.has + 1)
	if slices.ContainsFunc(m.log.all, func(one membership) bool { return one.last == m.has }) {
		m.detach(m.has)
		m.state.End(m.has)
		m.view = stretch.View{}
	}
}

func (m *machine) proceed(answers bool, limit int) {
	switch {
	case m.state.IsLive():
		m.serve()
	case !m.state.IsResting():
		m.step(answers, limit)
	}
}

// connect begins with a client that names its position, or does not know the conversation.
func (m *machine) connect() {
	m.connected = m.log.head
	m.old = m.connected + ids.Seq(rapid.IntRange(0, 6).Draw(m.t, "old"))
	if len(m.log.all) > 0 && rapid.Bool().Draw(m.t, "named") {
		in := m.log.all[rapid.IntRange(0, len(m.log.all)-1).Draw(m.t, "membership")]
		position := ids.Seq(rapid.Uint64Range(uint64(in.from), uint64(m.log.lastOf(in))).Draw(m.t, "position"))
		m.resume(in.from, position)
		m.state = stretch.Resume(position)
		if present := m.log.present(); present != 0 {
			m.resume(present, max(position, present-1)) // a subscription sends the former memberships as well, in one piece
			m.state = stretch.Live()
		}
		return
	}
	if present := m.log.present(); present != 0 {
		m.resume(present, m.log.head)
		m.state = stretch.Live()
	}
}

func (m *machine) resume(from, position ids.Seq) {
	m.open, m.has, m.isResume, m.first = true, position, true, from
	m.stays = []membership{{from: from}}
}

// requireComplete checks that nothing is missing, once there is nothing more to do.
func (m *machine) requireComplete() {
	var want []membership
	for _, one := range m.log.all {
		switch {
		case m.isResume && one.from < m.first: // the client was told before
		case !m.isResume && one.from <= m.connected: // ended before it connected
		case one.from <= m.old && !slices.Contains(m.noticed, one.from) && !slices.Contains(m.stays, one): // nothing says that it is not old
		default:
			want = append(want, one)
		}
	}
	require.Equal(m.t, want, m.stays)
	require.Equal(m.t, m.log.present() != 0, m.open)
	if m.open {
		require.Equal(m.t, m.log.head, m.has)
	}
}

// A client is told of each membership once, in order, from its first event to its last, whatever the order of things, however
// often history fails, and whatever becomes of the notices.
func TestEachMembershipIsToldOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &log{}
		grow := func() {
			if rapid.IntRange(0, 2).Draw(t, "event") == 0 {
				l.head++
			} else {
				l.toggle()
			}
		}
		for range rapid.IntRange(0, 12).Draw(t, "before") {
			grow()
		}
		m := &machine{client: &client{t: t, log: l}}
		m.connect()
		for _, one := range l.all { // a new worker repeats old notices
			if rapid.IntRange(0, 3).Draw(t, "repeated") == 0 {
				m.notices = append(m.notices, notice{seq: one.from})
			}
		}
		for range rapid.IntRange(0, 80).Draw(t, "length") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1, 2:
				grow()
				if l.present() == l.head {
					m.notices = append(m.notices, notice{l.head, true})
				}
			case 3:
				if len(m.notices) == 0 {
					break
				}
				i := rapid.IntRange(0, len(m.notices)-1).Draw(t, "which")
				n := m.notices[i]
				switch rapid.IntRange(0, 5).Draw(t, "fate") {
				case 0: // lost
				case 1:
					m.notices = append(m.notices, notice{seq: n.seq})
					fallthrough
				default:
					m.notice(n)
				}
				m.notices = slices.Delete(m.notices, i, i+1)
			default:
				m.proceed(rapid.IntRange(0, 4).Draw(t, "answers") > 0, rapid.IntRange(1, 5).Draw(t, "limit"))
			}
		}
		for _, n := range m.notices {
			m.notice(n)
		}
		for _, one := range l.all { // the comparison with the store finds all that are not old, and one that lasts
			if one.from > m.old || one.last == 0 {
				m.state.Notice(one.from)
			}
		}
		for n := 0; !m.state.IsResting() && (!m.state.IsLive() || m.has < l.head); n++ {
			require.Less(t, n, 2000, "it never ends")
			m.proceed(true, 3)
		}
		m.requireComplete()
	})
}
