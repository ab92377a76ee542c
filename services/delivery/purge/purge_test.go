package purge

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

func TestPurgeBelow(t *testing.T) {
	mark := func(sequence uint64) *historyv1.Watermark {
		return &historyv1.Watermark{Stream: "s", Epoch: 3, Sequence: sequence, TimeNs: 1}
	}
	other := func(change func(*historyv1.Watermark)) *historyv1.Watermark {
		m := mark(40_000)
		change(m)
		return m
	}
	half := extent{first: 1, last: 60_000, messages: 60_000, bytes: 50_000, maxBytes: 100_000}
	full := extent{first: 1, last: 60_000, messages: 60_000, bytes: 95_000, maxBytes: 100_000}
	for name, c := range map[string]struct {
		committed *historyv1.Watermark
		stream    extent
		backup    *historyv1.Watermark
		recent    uint64
		bound     uint64
		pressed   bool
	}{
		"below the backup":                                  {mark(50_000), half, mark(30_000), 0, 30_000, false},
		"10000 stay although a backup has them":             {mark(50_000), half, mark(49_000), 0, 40_000, false},
		"fewer than 10000 are committed":                    {mark(9_999), half, mark(9_000), 0, 0, false},
		"a backup of another stream covers no message":      {mark(50_000), half, other(func(m *historyv1.Watermark) { m.Stream = "t" }), 0, 0, false},
		"a backup of another epoch covers no message":       {mark(50_000), half, other(func(m *historyv1.Watermark) { m.Epoch = 2 }), 0, 0, false},
		"no backup: the last hour stays":                    {mark(50_000), half, nil, 20_000, 20_000, false},
		"no backup: 10000 stay":                             {mark(50_000), half, nil, 49_000, 40_000, false},
		"no backup: all is recent":                          {mark(50_000), half, nil, 1, 1, false},
		"nearly full: commands after the backup are purged": {mark(50_000), full, mark(1_000), 0, 20_001, true},
		"nearly full: the last 10000 are purged":            {mark(15_000), full, mark(15_000), 0, 15_000, true},
		"nearly full: uncommitted commands stay":            {mark(10), full, nil, 0, 10, true},
		"nearly full: the usual bound is enough":            {mark(50_000), full, mark(30_000), 0, 30_000, false},
		"nothing is committed":                              {mark(0), full, nil, 0, 0, false},
		"no limit":                                          {mark(50_000), extent{first: 1, last: 60_000, messages: 60_000, bytes: 1 << 40}, mark(30_000), 0, 30_000, false},
		"an empty stream":                                   {mark(50_000), extent{first: 50_001, last: 50_000, maxBytes: 1}, mark(50_000), 0, 40_000, false},
	} {
		bound, pressed := purgeBelow(c.committed, c.stream, c.backup, ids.Sequence(c.recent))
		require.Equal(t, ids.Sequence(c.bound), bound, name)
		require.Equal(t, c.pressed, pressed && bound > 0, name)
	}
}

// Whatever the numbers are, neither an uncommitted message nor the message at the watermark is purged.
func TestPurgeNeverReachesTheWatermark(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Uint64Range(0, 100_000)
		draw := func(what string) uint64 { return number.Draw(t, what) }
		committed := &historyv1.Watermark{Stream: "s", Sequence: draw("committed")}
		var backup *historyv1.Watermark
		if rapid.Bool().Draw(t, "marked") {
			backup = &historyv1.Watermark{Stream: "s", Sequence: draw("backup")}
		}
		stream := extent{first: ids.Sequence(draw("first")), messages: draw("messages"), bytes: draw("bytes"), maxBytes: draw("max")}
		stream.last = stream.first + ids.Sequence(stream.messages)
		bound, pressed := purgeBelow(committed, stream, backup, ids.Sequence(draw("recent")))
		require.LessOrEqual(t, bound, ids.Sequence(committed.GetSequence()))
		if !pressed {
			require.LessOrEqual(t, bound+KeptCommands, ids.Sequence(max(committed.GetSequence(), KeptCommands)))
			if backup != nil {
				require.LessOrEqual(t, bound, ids.Sequence(backup.GetSequence()))
			}
		}
	})
}
