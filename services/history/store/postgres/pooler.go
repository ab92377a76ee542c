package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A connection pooler in transaction mode (PgBouncer) may use another server connection for each transaction. Features
// that belong to a session do not work through it: connection settings, named prepared statements, LISTEN, and the lock
// of migrations. If Config.DirectURL is set, pooled connections use no settings and no named statements; LISTEN and
// migrations use direct connections.

// ErrPooler means that the URL leads to a connection pooler although Config.DirectURL is not set.
var ErrPooler = errors.New("the settings of the connection are refused or ignored: the URL seems to lead to a connection pooler such as PgBouncer; " +
	"keep it and name PostgreSQL itself with --history.direct-url, or let the URL name PostgreSQL itself")

// planning are settings of the planner. Every query is short and uses keys, so an index lookup for each key is always the right
// plan. If a table has grown since it was last analysed, the planner tends to read and hash the whole table. JIT compilation of
// such queries takes longer than running them. By default the planner also makes a new plan for most calls, because an array of
// one element looks cheaper than an array of unknown length; planning takes longer than the append itself.
var planning = []struct{ setting, value string }{
	{"enable_seqscan", "off"},
	{"enable_hashjoin", "off"},
	{"enable_mergejoin", "off"},
	{"enable_material", "off"},
	{"jit", "off"},
	{"plan_cache_mode", "force_generic_plan"},
}

// tune sets the settings that the store's connections rely on, apart from guards.
func tune(params map[string]string) {
	params["application_name"] = "runnel-history"
	// An acknowledged append must survive a failure of the machine, but databases and roles can have a weaker setting.
	params["synchronous_commit"] = "on"
	params["default_transaction_isolation"] = "read committed"
	for _, plan := range planning {
		params[plan.setting] = plan.value
	}
}

// throughPooler configures a connection to use no feature that belongs to a session.
func throughPooler(conn *pgx.ConnConfig) {
	clear(conn.RuntimeParams)
	conn.RuntimeParams["application_name"] = "runnel-history" // poolers pass this setting on
	conn.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	conn.StatementCacheCapacity = 0
}

// refusesSettings reports whether a pooler refused a connection because of its settings.
func refusesSettings(err error) bool {
	failed, is := errors.AsType[*pgconn.PgError](err)
	return is && failed.Code == "08P01" && strings.Contains(failed.Message, "startup parameter")
}

// checkPooler refuses connections whose settings were ignored. Behind a pooler, the settings must be set on the role;
// checkPooler warns of missing ones.
func (s *Store) checkPooler(ctx context.Context, log *slog.Logger) error {
	var seqscan, statement, lock, idle, role string
	err := s.pool.QueryRow(ctx, `SELECT current_setting('enable_seqscan'), current_setting('statement_timeout'), current_setting('lock_timeout'),
		current_setting('idle_in_transaction_session_timeout'), current_user`).Scan(&seqscan, &statement, &lock, &idle, &role)
	if err != nil {
		return fmt.Errorf("read its settings: %w", err)
	}
	if !s.pooled {
		if seqscan != "off" {
			return ErrPooler
		}
		return nil
	}
	var missing []string
	for _, plan := range planning {
		var value string
		if err := s.pool.QueryRow(ctx, "SELECT current_setting($1)", plan.setting).Scan(&value); err != nil {
			return fmt.Errorf("read its settings: %w", err)
		}
		if value != plan.value {
			missing = append(missing, plan.setting+" = "+plan.value)
		}
	}
	for name, value := range map[string]string{"statement_timeout": statement, "lock_timeout": lock, "idle_in_transaction_session_timeout": idle} {
		if value == "0" {
			missing = append(missing, name+" = '"+guards[name]+"'")
		}
	}
	if len(missing) > 0 {
		log.WarnContext(ctx, "behind a connection pooler the role must have these settings (ALTER ROLE ... SET ...); without them a hanging statement can block others, and plans can be slow",
			"role", role, "missing", missing)
	}
	return nil
}
