package torture

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the PostgreSQL driver
	_ "modernc.org/sqlite"             // the SQLite driver
)

// Database reads the stored data without the history service, over its own connections.
type Database struct {
	driver, source string
	// placeholder returns the SQL of the n-th parameter.
	placeholder func(n int) string

	mu   sync.Mutex
	db   *sql.DB // nil until it is needed
	away bool
}

// errAway means that the database is deliberately unavailable.
var errAway = errors.New("the database is away")

// OpenDatabase returns the database at a location in the form of the history service: "sqlite:PATH" or "postgres://…". It
// connects at the first use.
func OpenDatabase(location string) *Database {
	if path, found := strings.CutPrefix(location, "sqlite:"); found {
		return &Database{
			driver: "sqlite", source: "file:" + path + "?_pragma=busy_timeout(5000)&_pragma=query_only(1)",
			placeholder: func(int) string { return "?" },
		}
	}
	return &Database{driver: "pgx", source: location, placeholder: func(n int) string { return fmt.Sprintf("$%d", n) }}
}

func (d *Database) open() (*sql.DB, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.away:
		return nil, errAway
	case d.db != nil:
		return d.db, nil
	}
	db, err := sql.Open(d.driver, d.source)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.SetMaxOpenConns(4)
	d.db = db
	return db, nil
}

// Close closes all connections; the next call opens new ones. When a killed history service restarts with SQLite, no
// other process may have the file open: the service must recover the file itself.
func (d *Database) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db == nil {
		return nil
	}
	err := d.db.Close()
	d.db = nil
	return err
}

// Away closes all connections and opens none until Back. It is called before the database's file system is removed.
func (d *Database) Away() error {
	d.mu.Lock()
	d.away = true
	d.mu.Unlock()
	return d.Close()
}

// Back ends Away.
func (d *Database) Back() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = false
}

// Sighting is an observation that must not be possible before the commit.
type Sighting struct {
	Conversation string
	Seq          uint64
	// Sender and Command describe an outcome; Hash describes an event. Empty fields are not compared.
	Sender, Command, Hash string
	// Who is the observer.
	Who string
}

// Committed reports whether the database contains the observed event or outcome; problem describes the difference.
func (d *Database) Committed(ctx context.Context, s Sighting) (problem string, err error) {
	db, err := d.open()
	if err != nil {
		return "", err
	}
	query := "SELECT sender, command_id, hash FROM events WHERE conversation_id = " + d.placeholder(1) + " AND seq = " + d.placeholder(2)
	var sender string
	var command uuid.UUID
	var hash []byte
	err = db.QueryRowContext(ctx, query, s.Conversation, int64(s.Seq)).Scan(&sender, &command, &hash)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "is not in the database", nil
	case err != nil:
		return "", fmt.Errorf("look for an event: %w", err)
	case s.Hash != "" && s.Hash != hex.EncodeToString(hash):
		return "is another event in the database: command " + command.String() + " of " + sender, nil
	case s.Command != "" && (s.Command != command.String() || s.Sender != sender):
		return "is of another command in the database: " + command.String() + " of " + sender, nil
	}
	return "", nil
}

// Heads returns the newest seq of all conversations, and for each present member the seq up to which the member has
// received it.
func (d *Database) Heads(ctx context.Context) (heads map[string]uint64, members map[string]map[string]uint64, err error) {
	db, err := d.open()
	if err != nil {
		return nil, nil, err
	}
	heads, members = map[string]uint64{}, map[string]map[string]uint64{}
	all := reading{db: db}
	err = all.each(ctx, "SELECT conversation_id, head FROM conversations", func(scan func(...any) error) error {
		var id string
		var head uint64
		err := scan(&id, &head)
		heads[id], members[id] = head, map[string]uint64{}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = all.each(ctx, `SELECT m.conversation_id, m.user_id, COALESCE(c.delivered_seq, 0) FROM memberships m
		LEFT JOIN cursors c ON c.conversation_id = m.conversation_id AND c.user_id = m.user_id WHERE m.left_seq IS NULL`,
		func(scan func(...any) error) error {
			var id, user string
			var delivered uint64
			err := scan(&id, &user, &delivered)
			if members[id] == nil {
				members[id] = map[string]uint64{} // the conversation was made between the two queries
			}
			members[id][user] = delivered
			return err
		})
	return heads, members, err
}

// Content reads all data.
func (d *Database) Content(ctx context.Context) (c Content, err error) {
	db, err := d.open()
	if err != nil {
		return c, err
	}
	if c, err = (reading{db: db}).content(ctx); err != nil {
		return c, err
	}
	c.Regressions, err = d.Regressions(ctx)
	return c, err
}

// Snapshot reads one conversation as it is at one moment, even if it is being written.
func (d *Database) Snapshot(ctx context.Context, conversation string) (c Content, err error) {
	db, err := d.open()
	if err != nil {
		return c, err
	}
	options := &sql.TxOptions{ReadOnly: true}
	if d.driver == "pgx" {
		options.Isolation = sql.LevelRepeatableRead // SQLite's isolation level is stricter anyway
	}
	tx, err := db.BeginTx(ctx, options)
	if err != nil {
		return c, fmt.Errorf("begin a snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	return reading{db: tx, where: " WHERE conversation_id = " + d.placeholder(1), args: []any{conversation}}.content(ctx)
}

// Regressions returns the watermarks that went back. WatchWatermarks must have been called before.
func (d *Database) Regressions(ctx context.Context) (regressions []string, err error) {
	db, err := d.open()
	if err != nil {
		return nil, err
	}
	query := "SELECT partition, was_epoch, was, epoch, became FROM torture_regressions ORDER BY partition, was_epoch, was, epoch, became"
	err = reading{db: db}.each(ctx, query, func(scan func(...any) error) error {
		var partition, wasEpoch, was, epoch, became int64
		err := scan(&partition, &wasEpoch, &was, &epoch, &became)
		regressions = append(regressions, fmt.Sprintf("the watermark of partition %d went back from (%d, %d) to (%d, %d)", partition, wasEpoch, was, epoch, became))
		return err
	})
	return regressions, err
}

// watch contains triggers that record every watermark that moves back: within one epoch, or to a lower epoch.
var watch = map[string][]string{
	"sqlite": {
		`CREATE TABLE torture_regressions (partition INTEGER, was_epoch INTEGER, was INTEGER, epoch INTEGER, became INTEGER)`,
		`CREATE TRIGGER torture_watermark AFTER UPDATE ON partitions
		 WHEN (NEW.epoch, NEW.sequence) < (OLD.epoch, OLD.sequence) BEGIN
			INSERT INTO torture_regressions VALUES (NEW.partition, OLD.epoch, OLD.sequence, NEW.epoch, NEW.sequence);
		 END`,
	},
	"pgx": {
		`CREATE TABLE torture_regressions (partition integer, was_epoch bigint, was bigint, epoch bigint, became bigint)`,
		`CREATE FUNCTION torture_watermark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO torture_regressions VALUES (NEW.partition, OLD.epoch, OLD.sequence, NEW.epoch, NEW.sequence);
			RETURN NULL;
		 END $$`,
		`CREATE TRIGGER torture_watermark AFTER UPDATE ON partitions FOR EACH ROW
		 WHEN ((NEW.epoch, NEW.sequence) < (OLD.epoch, OLD.sequence)) EXECUTE FUNCTION torture_watermark()`,
	},
}

// WatchWatermarks makes the database record watermarks that move back. The history service must have created its tables
// before.
func (d *Database) WatchWatermarks(ctx context.Context) error {
	db, err := sql.Open(d.driver, strings.TrimSuffix(d.source, "&_pragma=query_only(1)"))
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer db.Close()
	for _, statement := range watch[d.driver] {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("watch the watermarks: %w", err)
		}
	}
	return nil
}
