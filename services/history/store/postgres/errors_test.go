package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/history/store"
)

func TestOnlyWhatWasSentIsToBlameForGood(t *testing.T) {
	for code, want := range map[string]error{
		"22021": store.ErrDefect, // character_not_in_repertoire
		"22003": store.ErrDefect, // numeric_value_out_of_range
		"23502": store.ErrDefect, // not_null_violation
		"23505": store.ErrDefect, // unique_violation that Append does not expect
		"23514": store.ErrDefect, // check_violation

		"53100": store.ErrUnavailable, // disk_full
		"53200": store.ErrUnavailable, // out_of_memory
		"53300": store.ErrUnavailable, // too_many_connections
		"58030": store.ErrUnavailable, // io_error
		"57P01": store.ErrUnavailable, // admin_shutdown
		"57P02": store.ErrUnavailable, // crash_shutdown
		"57P03": store.ErrUnavailable, // cannot_connect_now: it is starting up
		"57014": store.ErrUnavailable, // query_canceled, by a timeout
		"55P03": store.ErrUnavailable, // lock_not_available
		"25006": store.ErrUnavailable, // read_only_sql_transaction: a standby
		"25P03": store.ErrUnavailable, // idle_in_transaction_session_timeout
		"40001": store.ErrUnavailable, // serialization_failure
		"40P01": store.ErrUnavailable, // deadlock_detected
		"08006": store.ErrUnavailable, // connection_failure
		"28P01": store.ErrUnavailable, // invalid_password
		"3D000": store.ErrUnavailable, // the database does not exist
		"42P01": store.ErrUnavailable, // undefined_table
		"42501": store.ErrUnavailable, // insufficient_privilege
		"54000": store.ErrUnavailable, // program_limit_exceeded
		"XX001": store.ErrUnavailable, // data_corrupted
		"":      store.ErrUnavailable,
	} {
		err := wrap("try", fmt.Errorf("deep inside: %w", &pgconn.PgError{Code: code}))
		require.ErrorIs(t, err, want, code)
		require.False(t, errors.Is(err, store.ErrDefect) && errors.Is(err, store.ErrUnavailable), code)
	}
	require.ErrorIs(t, wrap("try", errors.New("connection reset by peer")), store.ErrUnavailable)
	gone := fmt.Errorf("timeout: %w", context.DeadlineExceeded)
	require.NotErrorIs(t, wrap("try", gone), store.ErrUnavailable, "the caller has cancelled; the database is healthy")
	require.NoError(t, wrap("try", nil))
}
