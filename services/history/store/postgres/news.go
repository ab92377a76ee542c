package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// channel carries news of appends between history services.
	channel = "runnel_feed"
	// wanted and the name of a service is the payload with which it asks the others for news; partitions, separated by
	// commas, are the news.
	wanted = "wanted "
	// newsLifetime is how long after a wanted a service tells its news.
	newsLifetime = 10 * time.Second
	// newsInterval is the shortest time between two notifications of a service: what is appended meanwhile shares the next one.
	newsInterval = 10 * time.Millisecond
	// newsTimeout is how long one notification may take.
	newsTimeout = 5 * time.Second
	// newsRetry is how long to wait before listening again after the connection was lost.
	newsRetry = time.Second
)

// news wakes readers of the feed when another history service appends. Appends themselves are not slowed down: they only
// note their partition, and only while another service has readers that wait; one goroutine notifies, outside of their
// transactions, because PostgreSQL lets transactions that notify commit one by one. The other goroutine listens, on a connection of its
// own. News may be lost: readers look again every store.FeedRecheck.
type news struct {
	store *Store
	name  string // tells what this service said itself
	conn  *pgx.ConnConfig
	log   *slog.Logger
	stop  context.CancelFunc
	done  sync.WaitGroup
	warn  rate.Sometimes

	mu     sync.Mutex
	dirty  map[uint32]struct{}
	asked  time.Time // when this service last said that it wants news
	asking bool
	until  time.Time // how long others want news
	wake   chan struct{}
}

func startNews(ctx context.Context, s *Store, conn *pgx.ConnConfig, log *slog.Logger) *news {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	n := &news{
		store: s, name: rand.Text(), conn: conn.Copy(), log: log, stop: stop, warn: rate.Sometimes{Interval: time.Minute},
		dirty: map[uint32]struct{}{}, wake: make(chan struct{}, 1),
	}
	n.done.Go(func() { n.listen(ctx) })
	n.done.Go(func() { n.tell(ctx) })
	return n
}

func (n *news) close() {
	n.stop()
	n.done.Wait()
}

// appended notes an append of this service.
func (s *Store) appended(partition uint32) {
	s.bells.Ring(partition)
	n := s.news
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Now().Before(n.until) {
		n.dirty[partition] = struct{}{}
		n.nudge()
	}
}

// FeedBell is rung by the appends of this service at once, and by those of others when their news come.
func (s *Store) FeedBell(partition uint32) <-chan struct{} {
	n := s.news
	n.mu.Lock()
	if now := time.Now(); now.Sub(n.asked) > newsLifetime/4 {
		n.asked, n.asking = now, true
		n.nudge()
	}
	n.mu.Unlock()
	return s.bells.Bell(partition)
}

// nudge wakes tell. n.mu must be held.
func (n *news) nudge() {
	select {
	case n.wake <- struct{}{}:
	default: // it is awake
	}
}

// tell notifies the others.
func (n *news) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		for _, payload := range n.take() {
			limited, cancel := context.WithTimeout(ctx, newsTimeout)
			err := n.store.pool.working(limited, func(conn *pgxpool.Conn) error {
				_, err := conn.Exec(limited, "SELECT pg_notify($1, $2)", channel, payload)
				return err
			})
			cancel()
			if err != nil && ctx.Err() == nil {
				n.warn.Do(func() {
					n.log.WarnContext(ctx, "other history services were not told of appends; they look by themselves", "error", err)
				})
			}
		}
		if !pause(ctx, newsInterval) {
			return
		}
	}
}

// take is what is to be told now.
func (n *news) take() (payloads []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.asking {
		payloads, n.asking = append(payloads, wanted+n.name), false
	}
	if len(n.dirty) > 0 {
		partitions := make([]string, 0, len(n.dirty))
		for partition := range n.dirty {
			partitions = append(partitions, strconv.FormatUint(uint64(partition), 10))
		}
		slices.Sort(partitions)
		clear(n.dirty)
		payloads = append(payloads, strings.Join(partitions, ","))
	}
	return payloads
}

// listen hears the others, for as long as the store is open.
func (n *news) listen(ctx context.Context) {
	for {
		err := n.hear(ctx)
		if ctx.Err() != nil {
			return
		}
		n.warn.Do(func() {
			n.log.WarnContext(ctx, "the connection for news of appends was lost; it is made again", "error", err)
		})
		if !pause(ctx, newsRetry) {
			return
		}
	}
}

func (n *news) hear(ctx context.Context) (err error) {
	limited, cancel := context.WithTimeout(ctx, newsTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(limited, n.conn)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), newsTimeout)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	if _, err := conn.Exec(limited, "LISTEN "+channel); err != nil {
		return err
	}
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		n.heard(notification.Payload)
	}
}

// heard rings the bells that the news are about, or notes that somebody wants news. A service hears itself, too.
func (n *news) heard(payload string) {
	if name, asks := strings.CutPrefix(payload, wanted); asks {
		if name == n.name {
			return
		}
		n.mu.Lock()
		n.until = time.Now().Add(newsLifetime)
		n.mu.Unlock()
		return
	}
	for text := range strings.SplitSeq(payload, ",") {
		if partition, err := strconv.ParseUint(text, 10, 32); err == nil {
			n.store.bells.Ring(uint32(partition))
		}
	}
}

// pause waits; false when the context has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var _ store.Feed = (*Store)(nil)
