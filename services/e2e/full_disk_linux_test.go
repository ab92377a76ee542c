package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/standalone"
)

// disk is a small file system of its own.
type disk struct {
	t   *testing.T
	dir string
}

// mountDisk mounts a file system of a size in memory. The test is skipped without the right to mount.
func mountDisk(t *testing.T, size string) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting a small file system needs root")
	}
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("SKIPPED: root may not mount a file system here")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return &disk{t, dir}
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill takes all space that is left.
func (d *disk) fill() {
	d.t.Helper()
	file, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(d.t, err)
	defer file.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		_, err := file.Write(block)
		if errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
			continue
		}
		require.NoError(d.t, err)
	}
	var free syscall.Statfs_t
	require.NoError(d.t, syscall.Statfs(d.dir, &free))
	require.Zero(d.t, free.Bavail)
}

func (d *disk) free() {
	d.t.Helper()
	require.NoError(d.t, os.Remove(d.ballast()))
}

// isReady asks for the readiness, as an orchestrator does.
func (s *suite) isReady() bool {
	response, err := http.Get("http://" + s.s.AdminAddr() + "/readyz")
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// A full disk makes Runnel not ready. When there is space again it recovers by itself, and commits what clients hold, in order.
func TestAFullDisk(t *testing.T) {
	d := mountDisk(t, "96m")
	s := start(t, func(cfg *standalone.Config) { cfg.DataDir = d.dir })
	require.Eventually(t, s.isReady, patience, 10*time.Millisecond)
	ann := open(t, s.url(), "ann", frame.Proto, nil)
	id, err := ann.OpenDirect(t.Context(), "bob")
	require.NoError(t, err)
	last := ann.done(id, text("before"))

	large := strings.Repeat("x", 8000)
	var held []*client.Ticket
	require.Eventually(t, func() bool {
		d.fill() // what a part gave back is taken as well
		if len(held) < 100 {
			ticket, err := ann.Enqueue(id, text(large))
			require.NoError(t, err)
			held = append(held, ticket)
		}
		return !s.isReady()
	}, 2*patience, 100*time.Millisecond, "it is ready without a disk")
	require.Eventually(t, func() bool {
		d.fill()
		if len(held) < 100 {
			ticket, err := ann.Enqueue(id, text("while it is full"))
			require.NoError(t, err)
			held = append(held, ticket)
		}
		return strings.Count(s.logs.String(), "restarting it") >= 2
	}, 2*patience, 100*time.Millisecond, "NATS is restarted as long as it cannot store")

	d.free()
	require.Eventually(t, s.isReady, 2*patience, 10*time.Millisecond, "it does not recover; its log:\n%s", s.logs)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	for _, ticket := range held {
		outcome, err := ticket.Wait(ctx)
		require.NoError(t, err)
		last++
		require.Equal(t, last, outcome.GetSeq())
	}
	require.Equal(t, last+1, ann.done(id, text("after")))
	ann.upTo(last + 1)
}
