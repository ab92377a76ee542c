package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
)

var notLogged = regexp.MustCompile(`not_logged=(\d+)`)

// tally returns the number of lines in a log, and the number of lines that they represent.
func tally(t *testing.T, log string) (written, total int) {
	t.Helper()
	written = strings.Count(log, "\n")
	total = written
	for _, match := range notLogged.FindAllStringSubmatch(log, -1) {
		n, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		total += n
	}
	return written, total
}

func TestAFloodOfLinesIsLimitedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log telemetrytest.Log
		limiter := NewLimiter(slog.NewTextHandler(&log, nil))
		logger := slog.New(limiter)
		for n := range 6000 { // ten minutes
			logger.With("connection", n).Info("a token was refused", "reason", "expired")
			time.Sleep(100 * time.Millisecond)
		}
		limiter.Close()
		written, total := tally(t, log.String())
		require.Equal(t, 6000, total)
		require.Less(t, written, 20, log.String())
	})
}

func TestARareLineIsNeverHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log telemetrytest.Log
		limiter := NewLimiter(slog.NewTextHandler(&log, nil))
		for range 10 {
			for range lineBurst {
				slog.New(limiter).Info("line")
			}
			time.Sleep(firstPause + time.Millisecond)
		}
		synctest.Wait()
		written, total := tally(t, log.String())
		require.Equal(t, 10*lineBurst, written)
		require.Equal(t, written, total)
	})
}

func TestKindsDoNotHoldEachOtherBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log telemetrytest.Log
		limiter := NewLimiter(slog.NewTextHandler(&log, nil))
		defer limiter.Close()
		for range 1000 {
			slog.New(limiter).Info("noise")
		}
		slog.New(limiter).Error("noise")
		slog.New(limiter).Info("the end")
		require.Contains(t, log.String(), "level=ERROR msg=noise")
		require.Contains(t, log.String(), `msg="the end"`)
	})
}

// Lines about 16 partitions with the same cause: one line is written at once, and one line represents all others.
func TestPartitionsAreGrouped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log telemetrytest.Log
		limiter := NewLimiter(slog.NewTextHandler(&log, nil))
		for p := range 16 {
			of := slog.New(limiter).With("partition", p)
			for range 7 { // once a second
				of.Warn("the partition is interrupted; trying again", "error", "timeout")
			}
		}
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		time.Sleep(firstPause + time.Millisecond)
		synctest.Wait()
		written, total := tally(t, log.String())
		require.Equal(t, 2, written, log.String())
		require.Equal(t, 16*7, total)
		require.Contains(t, log.String(), "partitions=0-15")
		limiter.Close()
	})
}

func TestTheTableOfKindsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log telemetrytest.Log
		limiter := NewLimiter(slog.NewTextHandler(&log, nil))
		for n := range 10_000 {
			slog.New(limiter).Warn(fmt.Sprintf("message %d", n))
		}
		require.LessOrEqual(t, len(limiter.table.kinds), maxKinds+1)
		limiter.Close()
		written, total := tally(t, log.String())
		require.Equal(t, 10_000, total)
		require.LessOrEqual(t, written, maxKinds+lineBurst+1)
	})
}

func TestTheActionsOfOperatorsAreAllLogged(t *testing.T) {
	var log bytes.Buffer
	limiter := NewLimiter(slog.NewTextHandler(&log, nil))
	defer limiter.Close()
	for range 100 {
		slog.New(limiter).InfoContext(Unlimited(t.Context()), "an operator's action")
	}
	require.Equal(t, 100, strings.Count(log.String(), "\n"))
}

func TestALongValueIsCut(t *testing.T) {
	for _, value := range []any{strings.Repeat("é", 1<<20), errors.New(strings.Repeat("x", 1<<20))} {
		var log bytes.Buffer
		logger, limiter, err := newLogger("test", Config{}, &log)
		require.NoError(t, err)
		logger.Info("line", slog.Group("group", "value", value))
		limiter.Close()
		require.Less(t, log.Len(), 2*maxValueBytes)
		require.Contains(t, log.String(), "… (")
	}
}

func TestShutdownWritesWhatIsHeldBack(t *testing.T) {
	var log bytes.Buffer
	tel, err := Start(t.Context(), "test", Config{}, &log)
	require.NoError(t, err)
	for range 5000 {
		tel.Log.With("part", "any").Info("line")
	}
	require.NoError(t, tel.Shutdown(t.Context()))
	written, total := tally(t, log.String())
	require.Equal(t, 5000, total)
	require.Equal(t, lineBurst+1, written)
}

func BenchmarkHeldBack(b *testing.B) {
	limiter := NewLimiter(slog.DiscardHandler)
	defer limiter.Close()
	logger := slog.New(limiter).With("service", "gateway")
	for b.Loop() {
		logger.Info("a token was refused", "connection", "x", "reason", "expired")
	}
}
