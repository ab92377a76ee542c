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

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// channel carries notifications of appends between history services.
	channel = "runnel_feed"
	// A payload of wanted and the name of a service requests notifications from the other services. A payload of
	// partitions, separated by commas, is a notification.
	wanted = "wanted "
	// newsLifetime is how long a service sends notifications after another service has requested them.
	newsLifetime = 10 * time.Second
	// newsInterval is the shortest time between two notifications of a service. Appends within this time share the next
	// notification.
	newsInterval = 10 * time.Millisecond
	// newsTimeout is the time limit of one notification.
	newsTimeout = 5 * time.Second
	// newsRetry is how long to wait before listening again after the connection was lost.
	newsRetry = time.Second
)

// news wakes readers of the feed when another history service appends. It does not slow down appends: they only record
// their partition, and only while another service has waiting readers. One goroutine sends notifications outside of the
// appends' transactions, because PostgreSQL commits transactions that notify one by one. The other goroutine listens on a
// separate connection. Notifications may be lost: readers read again every store.FeedRecheck.
type news struct {
	store *Store
	name  string // the name of this service, by which it recognises its own payloads
	conn  *pgx.ConnConfig
	log   *slog.Logger
	stop  context.CancelFunc
	done  sync.WaitGroup
	warn  rate.Sometimes

	mu     sync.Mutex
	dirty  map[uint32]struct{}
	asked  time.Time // when this service last requested notifications
	asking bool
	until  time.Time // time until which other services want notifications
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

// appended records an append of this service.
func (s *Store) appended(partition ids.Partition) {
	s.bells.Ring(partition)
	n := s.news
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Now().Before(n.until) {
		n.dirty[uint32(partition)] = struct{}{}
		n.nudge()
	}
}

// FeedBell returns the bell of a partition. Appends of this service ring it at once; appends of other services ring it
// when their notification arrives.
func (s *Store) FeedBell(partition ids.Partition) <-chan struct{} {
	n := s.news
	n.mu.Lock()
	if now := time.Now(); now.Sub(n.asked) > newsLifetime/4 {
		n.asked, n.asking = now, true
		n.nudge()
	}
	n.mu.Unlock()
	return s.bells.Bell(partition)
}

// nudge wakes the goroutine tell. The caller holds n.mu.
func (n *news) nudge() {
	select {
	case n.wake <- struct{}{}:
	default: // tell is already awake
	}
}

// tell sends notifications to the other services.
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
					n.log.WarnContext(ctx, "other history services were not notified of appends; their readers find them by periodic reads", "error", err)
				})
			}
		}
		if !pause(ctx, newsInterval) {
			return
		}
	}
}

// take returns the payload to be sent now.
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

// listen receives the notifications of other services, as long as the store is open.
func (n *news) listen(ctx context.Context) {
	for {
		err := n.hear(ctx)
		if ctx.Err() != nil {
			return
		}
		n.warn.Do(func() {
			n.log.WarnContext(ctx, "the connection for notifications of appends was lost; reconnecting", "error", err)
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

// heard handles a payload. It rings the bells of the partitions in a notification, or records that another service wants
// notifications. A service also receives its own payloads, and ignores them.
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
			n.store.bells.Ring(ids.Partition(partition))
		}
	}
}

// pause waits; it returns false if the context has ended.
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
