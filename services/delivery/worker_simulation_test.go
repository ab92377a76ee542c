package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/deliverytest/session"
	"github.com/runnelhq/runnel/services/delivery/partition"
	"github.com/runnelhq/runnel/services/delivery/partition/commit"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/partition/takeover"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// simulation is an installation with one partition. Its parts take single steps in any order. Clients retry commands.
// Gateways publish copies of a command with a delay. The stream may lose its tail or be replaced. Workers take over, die,
// and lose the answers to appends. The database may be restored from a backup. The planner, the memory of refusals and
// the store's rules are those of production.
type simulation struct {
	choose func(n int) int // returns 0 to n-1
	forget bool            // planted bug: refusals are not remembered

	nowMs    int64
	store    *deliverytest.History
	stream   simStream
	workers  []*simWorker
	asks     map[source.CommandKey]*simAsk
	wander   []*brokerv1.Command // published copies that the stream has not received yet
	commands int
	snapshot *simSnapshot
	owed     int64 // the newest watermark before a restore
	broken   string
	seen     simSeen
}

// simSeen counts the situations that a run met. The test requires that every situation occurred.
type simSeen struct{ refusals, remembered, late, repeated, takeovers, uncertain, superseded, lost, restored, retried int }

type simStream struct {
	identity int
	entries  []source.Message // contiguous from sequence 1
}

// simAsk is a client's state for one command.
type simAsk struct {
	command *brokerv1.Command // without the fields that the gateway adds
	attempt uint32
	// refused is 1 + the highest attempt whose refusal the client received, or 0 if it received none.
	refused   uint32
	committed bool
}

type simWorker struct {
	*session.Session
	position uint64
	stream   int
	begin    bool
	working  bool
	had      *historyv1.Watermark // the newest acknowledged watermark, kept over takeovers
}

type simSnapshot struct {
	store  *deliverytest.History
	stream int
}

// longestWait is how long a gateway waits for an outcome after admission, in milliseconds.
const longestWait = 68_000

var simGroup = conversation.GroupID("ann", ids.Command(deliverytest.CommandID(1)))

func newSimulation(choose func(int) int) *simulation {
	s := &simulation{choose: choose, nowMs: 1_000_000_000, store: deliverytest.NewHistory(1), asks: map[source.CommandKey]*simAsk{}}
	s.stream.identity = 1
	for range 2 {
		s.workers = append(s.workers, &simWorker{Session: session.New(1000)})
	}
	s.ask(deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob")))
	return s
}

// ask makes a client send a command. It is sent in the same attempt until the client has received a refusal of that
// attempt.
func (s *simulation) ask(c *brokerv1.Command) {
	key := source.KeyOf(c)
	a := s.asks[key]
	if a == nil {
		a = &simAsk{command: c}
		s.asks[key] = a
	}
	if a.refused > a.attempt {
		a.attempt++
		s.seen.retried++
	}
	copied := proto.Clone(c).(*brokerv1.Command)
	copied.Attempt = a.attempt
	copied.AdmittedMs = s.nowMs + int64(s.choose(3)-1)*20_000 // the clocks of gateways differ
	copied.NotAfterMs = copied.GetAdmittedMs() + broker.CopyLifetime.Milliseconds()
	copied.Salt = make([]byte, chain.SaltSize)
	copied.Salt[0] = byte(s.choose(256))
	s.wander = append(s.wander, copied)
	if s.choose(3) == 0 { // the gateway publishes the copy twice
		s.wander = append(s.wander, copied)
	}
}

func (s *simulation) step() {
	switch s.choose(16) {
	case 0:
		s.nowMs += int64(s.choose(3)) * 60_000
	case 1, 2:
		s.newCommand()
	case 3, 4:
		if keys := s.open(); len(keys) > 0 {
			s.ask(s.asks[keys[s.choose(len(keys))]].command)
		}
	case 5, 6, 7, 8:
		s.publish()
	case 9:
		w := s.workers[s.choose(len(s.workers))]
		s.takeOver(w)
	case 10:
		s.workers[s.choose(len(s.workers))].working = false
	case 11:
		s.disturb()
	default:
		w := s.workers[s.choose(len(s.workers))]
		if !w.working {
			s.takeOver(w)
		}
		s.work(w)
	}
	s.nowMs += int64(1 + s.choose(2000))
}

// open returns the commands that clients still send, in a stable order.
func (s *simulation) open() []source.CommandKey {
	var keys []source.CommandKey
	for key, a := range s.asks {
		if !a.committed {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, deliverytest.CompareKeys)
	return keys
}

func (s *simulation) newCommand() {
	if len(s.asks) > 12 {
		return
	}
	s.commands++
	n := 100 + s.commands
	switch s.choose(4) {
	case 0:
		s.ask(deliverytest.Command(string(simGroup), "ann", n, &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"eve"}}}}))
	case 1:
		s.ask(deliverytest.Command(string(simGroup), "ann", n, &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: "eve"}}}))
	default:
		s.ask(deliverytest.Command(string(simGroup), "eve", n, deliverytest.Text("hi")))
	}
}

// publish moves one copy on its way into the stream, or loses it.
func (s *simulation) publish() {
	if len(s.wander) == 0 {
		return
	}
	i := s.choose(len(s.wander))
	c := s.wander[i]
	s.wander = slices.Delete(s.wander, i, i+1)
	if s.choose(10) == 0 {
		return
	}
	timeMs := s.nowMs
	if n := len(s.stream.entries); n > 0 {
		timeMs = max(timeMs, s.stream.entries[n-1].TimeMs()+1)
	}
	payload, err := c.MarshalVT()
	if err != nil {
		panic(err)
	}
	s.stream.entries = append(s.stream.entries, source.Decode(ids.Sequence(uint64(len(s.stream.entries))+1), timeMs*1e6, payload))
}

// disturb makes the broker or the database lose data. All workers notice it, because their connections break.
func (s *simulation) disturb() {
	kept := len(s.stream.entries) - s.choose(len(s.stream.entries)+1)
	what := s.choose(4)
	if what < 2 && s.store.Watermarks[0].GetTimeNs() < s.owed {
		return // only the stream has the commits that a restore removed: the stream must not lose them
	}
	switch what {
	case 0: // the tail is lost
		s.stream.entries = slices.Clone(s.stream.entries[:kept])
		s.seen.lost++
		s.snapshot = nil
	case 1: // the stream is recreated with some old messages
		s.stream = simStream{identity: s.stream.identity + 1, entries: slices.Clone(s.stream.entries[:kept])}
		s.seen.lost++
		s.snapshot = nil
	case 2:
		s.snapshot = &simSnapshot{store: s.store.Clone(), stream: s.stream.identity}
		return
	case 3:
		if s.snapshot == nil || s.snapshot.stream != s.stream.identity {
			return
		}
		s.owed = max(s.owed, s.store.Watermarks[0].GetTimeNs())
		s.store = s.snapshot.store.Clone()
		s.seen.restored++
	}
	for _, w := range s.workers {
		w.working = false
	}
}

// takeOver finds the position of a worker as owner.takeOver does, and loads the store's watermark and refusals.
func (s *simulation) takeOver(w *simWorker) {
	s.seen.takeovers++
	w.Store = s.store
	answer, _ := s.store.GetWatermark(context.Background(), &historyv1.GetWatermarkRequest{})
	w.Mark = answer.GetWatermark()
	w.begin, w.stream, w.working = false, s.stream.identity, true
	if w.begin = takeover.Before(w.Mark, w.had); !w.begin {
		w.had = w.Mark
	}
	w.Restart()
	mark := w.Mark
	switch lost := mark.GetSequence() > uint64(len(s.stream.entries)) ||
		(mark.GetSequence() > 0 && s.stream.entries[mark.GetSequence()-1].TimeNs != mark.GetTimeNs()); {
	case mark.GetStream() == "":
		w.position, w.begin = 0, true
	case mark.GetStream() != strconv.Itoa(s.stream.identity) || lost:
		w.begin, w.position = true, 0
		for _, e := range s.stream.entries {
			if e.TimeNs <= mark.GetTimeNs() {
				w.position = uint64(e.Sequence)
				if err := partition.Agrees(&e); err != nil {
					s.broken = "clocks: " + err.Error()
				}
			}
		}
	default:
		w.position = mark.GetSequence()
	}
}

// work makes a worker commit one batch and publish the results.
func (s *simulation) work(w *simWorker) {
	if w.stream != s.stream.identity || w.position >= uint64(len(s.stream.entries)) {
		return
	}
	batch := s.stream.entries[w.position:]
	batch = batch[:1+s.choose(len(batch))]
	batch = batch[:plan.Cut(batch)]
	if s.forget {
		w.Refusals = dedupe.NewRefusals(1000)
	}
	heard := s.choose(5) > 0
	verdicts, ok := w.appendOnce(strconv.Itoa(w.stream), batch, w.begin)
	switch {
	case !ok:
		s.seen.superseded++
		w.working = false
	case !heard: // committed, but the worker does not receive the answer
		s.check(batch, verdicts, false)
		s.seen.uncertain++
		w.working = false
	default:
		w.begin, w.had = false, w.Mark
		w.position = uint64(batch[len(batch)-1].Sequence)
		s.check(batch, verdicts, true)
	}
}

// appendOnce plans and appends a batch. It returns false if another worker moved the watermark.
func (w *simWorker) appendOnce(stream string, batch []source.Message, begin bool) ([]plan.Result, bool) {
	ids := w.Cache.Missing(nil, map[ids.Conversation]struct{}{simGroup: {}})
	found, _ := w.Store.GetConversations(context.Background(), &historyv1.GetConversationsRequest{ConversationIds: ids})
	w.Cache.AddLoaded(ids, found.GetConversations(), 0)
	known := dedupe.NewFacts()
	for {
		p := w.Planner.Make(batch, known, w.World())
		request := &historyv1.FindCommandsRequest{}
		for _, k := range p.Unconfirmed(batch, known) {
			request.Commands = append(request.Commands, k.Proto())
		}
		firsts, _ := w.Store.FindCommands(context.Background(), request)
		for _, event := range firsts.GetEvents() {
			known.Firsts[source.KeyOfEvent(event)] = event
		}
		if len(firsts.GetEvents()) > 0 {
			continue
		}
		last := batch[len(batch)-1]
		next := &historyv1.Watermark{Stream: stream, Sequence: uint64(last.Sequence), TimeNs: last.TimeNs}
		answer, err := w.Store.Append(context.Background(), &historyv1.AppendRequest{
			Expected: w.Mark, Next: next, BeginEpoch: begin, Events: p.Events, Sequences: p.Sequences, Effects: p.Effects,
			DeadLetters: p.Letters, Refusals: p.Refusals,
		})
		if err != nil {
			return nil, false
		}
		for _, d := range answer.GetDuplicates() {
			known.Firsts[source.KeyOfEvent(p.Events[d.GetIndex()])] = d.GetFirst()
		}
		if len(answer.GetDuplicates()) > 0 {
			continue
		}
		next.Epoch = answer.GetEpoch()
		w.Mark = next
		w.Cache.ApplyCommitted(commit.ChangeOf(p), 0)
		w.Refusals.Add(p.Refusals, last.TimeMs())
		return p.Results, true
	}
}

// check compares the results of a batch with the outcomes that clients received before. It then delivers the results to
// clients. A result may be lost, and a gateway that no longer waits for a command ignores its result.
func (s *simulation) check(batch []source.Message, verdicts []plan.Result, told bool) {
	for i := range verdicts {
		v, c := &verdicts[i], batch[i].Command
		a := s.asks[source.KeyOf(c)]
		switch {
		case v.Event != nil && !v.Repeated:
			if a.refused > c.GetAttempt() {
				s.broken = fmt.Sprintf("command %s is committed in attempt %d, after a refusal of attempt %d was received", c.GetCommandId(), c.GetAttempt(), a.refused-1)
			}
		case v.Event != nil:
			s.seen.repeated++
		case v.Late:
			s.seen.late++
		case v.Remembered:
			s.seen.remembered++
		default:
			s.seen.refusals++
		}
		if first := s.store.Keys[source.KeyOf(c)]; v.Event == nil && v.Err() != plan.ErrUnknown && first != nil && first.GetTimeMs() < batch[i].TimeMs() {
			s.broken = fmt.Sprintf("command %s is refused although it was committed", c.GetCommandId())
		}
		if !told || s.choose(3) == 0 || s.nowMs > c.GetAdmittedMs()+longestWait {
			continue
		}
		if v.Event != nil {
			a.committed = true
		} else if v.Err() != plan.ErrUnknown {
			a.refused = max(a.refused, c.GetAttempt()+1)
		}
	}
}

func (s *simulation) run(steps int) {
	for range steps {
		if s.step(); s.broken != "" {
			return
		}
	}
}

// I13: no command is committed in an attempt whose refusal the client received, and every command is committed at most
// once.
func TestNoCommandIsCommittedAfterItsRefusal(t *testing.T) {
	var seen simSeen
	rapid.Check(t, func(t *rapid.T) {
		choice := rapid.IntRange(0, 1<<20)
		s := newSimulation(func(n int) int { return choice.Draw(t, "choice") % n })
		s.run(120)
		require.Empty(t, s.broken)
		s.store.Verify(t)
	})
	// A plain random generator makes many more runs: it is faster than rapid, and does not shrink failures.
	for seed := range uint64(400) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := newSimulation(random.IntN)
		s.run(400)
		require.Empty(t, s.broken, "seed %d", seed)
		seen.add(s.seen)
	}
	for what, n := range map[string]int{
		"refusals": seen.refusals, "remembered": seen.remembered, "late": seen.late, "repeated": seen.repeated, "takeovers": seen.takeovers,
		"uncertain": seen.uncertain, "superseded": seen.superseded, "lost": seen.lost, "restored": seen.restored, "retried": seen.retried,
	} {
		require.Greater(t, n, 100, what)
	}
}

func (s *simSeen) add(other simSeen) {
	s.refusals += other.refusals
	s.remembered += other.remembered
	s.late += other.late
	s.repeated += other.repeated
	s.takeovers += other.takeovers
	s.uncertain += other.uncertain
	s.superseded += other.superseded
	s.lost += other.lost
	s.restored += other.restored
	s.retried += other.retried
}

// The simulation detects that refusals are not remembered.
func TestSimulationNoticesForgottenRefusals(t *testing.T) {
	for seed := range uint64(400) {
		s := newSimulation(rand.New(rand.NewPCG(seed, 1)).IntN)
		s.forget = true
		if s.run(400); s.broken != "" {
			require.Contains(t, s.broken, "after a refusal")
			return
		}
	}
	require.Fail(t, "no run broke the promise")
}
