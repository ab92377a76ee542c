package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// parts measures what each part spends on a message of the groups at a fixed rate, and what a message takes on disk and on the
// clients' network. `runnel size` computes with these figures.
func parts(ctx context.Context, t *trial) error {
	c, err := t.talkers(ctx, true)
	if err != nil {
		return err
	}
	defer c.close()
	c.loop.Handle(&listener{outcome: func(client *load.Client, _ int64, seq uint64, _ int64) { c.committed(client, seq) }})
	return under(ctx, t.Runs, t.Warmup, func(ctx context.Context) error {
		_, err := load.Pace(ctx, t.fastRate, func(i int) error {
			c.ease(ctx)
			return c.send(c.turn(i))
		})
		return err
	}, func(ctx context.Context, run int) error {
		before, err := t.spent(ctx, c)
		if err != nil {
			return err
		}
		if _, err := t.window(ctx, run); err != nil {
			return err
		}
		after, err := t.spent(ctx, c)
		if err != nil {
			return err
		}
		n := float64(after.messages - before.messages)
		if n == 0 {
			return errors.New("no message was committed")
		}
		var said strings.Builder
		for part, cpu := range after.cpu {
			each := perUnit(cpu-before.cpu[part], n)
			t.record("parts", part+" cpu", each)
			fmt.Fprintf(&said, " %s %.0f µs", part, each)
		}
		for what, bytes := range after.bytes {
			each := (bytes - before.bytes[what]) / n
			t.record("parts", what+" bytes", each)
			fmt.Fprintf(&said, " %s %.0f B", what, each)
		}
		t.progressf("run %d: %.0f messages/s; each costs%s", run+1, n/after.at.Sub(before.at).Seconds(), said.String())
		return nil
	}, c, c.settle)
}

// spent is what the parts have used so far.
type spent struct {
	at       time.Time
	messages int64
	cpu      map[string]time.Duration // by kind of part
	bytes    map[string]float64       // stored and sent
}

func (t *trial) spent(ctx context.Context, c *crowd) (spent, error) {
	s := spent{at: time.Now(), messages: c.answers.Load(), cpu: map[string]time.Duration{}, bytes: map[string]float64{}}
	for _, part := range t.Parts() {
		kind, _, _ := strings.Cut(part.Name(), "-")
		s.cpu[kind] += launch.Total(part).CPU
	}
	for _, p := range t.NATS {
		s.bytes["stream"] += treeBytes(p.Data)
	}
	for _, p := range t.front() {
		metrics, err := p.Metrics(ctx)
		if err != nil {
			return s, err
		}
		s.bytes["client"] += metrics["runnel_gateway_bytes_out_total"]
	}
	stored, err := databaseBytes(ctx, t.Database)
	s.bytes["store"] = stored
	return s, err
}

// databaseBytes is the size of the database without its write-ahead log.
func databaseBytes(ctx context.Context, url string) (bytes float64, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, fmt.Errorf("measure the database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if err := conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&bytes); err != nil {
		return 0, fmt.Errorf("measure the database: %w", err)
	}
	return bytes, nil
}

// treeBytes is the size of all files below a directory.
func treeBytes(dir string) (bytes float64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // files vanish while they are counted
		}
		if info, err := entry.Info(); err == nil {
			bytes += float64(info.Size())
		}
		return nil
	})
	return bytes
}
