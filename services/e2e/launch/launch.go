// Package launch runs Runnel as in production: every service is a separate process, with real NATS servers, and SQLite
// or PostgreSQL, on free loopback ports. System tests and the benchmark start Runnel, measure its cost, and stop, kill or pause
// its parts.
//
//	build.go     programs from the workspace, with build tags
//	process.go   one program: Process
//	postgres.go  one PostgreSQL server: Postgres
//	nats.go      NATS servers, one or a cluster
//	links.go     the network between the parts: a proxy on every connection
//	proc.go      CPU and memory from the operating system, signals to a process and its descendants
//	suite.go     services that work together: Start, StartStandalone
//
// It does not depend on the internals of a service: it uses only flags, signals, /readyz, /metrics and /proc.
package launch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Part is one running server of a suite. Only one goroutine at a time may call its methods, except Usage and Name.
type Part interface {
	// Name returns the part's unique name, such as "gateway-1".
	Name() string
	// Restart starts the part again after Stop or Kill, on the same ports and data, and waits until it is ready. Like an
	// orchestrator, it repeats a failed start until ctx ends.
	Restart(ctx context.Context) error
	// Stop tells the part to end (SIGTERM) and waits. If the part does not end in time, Stop kills it and returns an
	// error.
	Stop() error
	// Kill ends the part without warning (SIGKILL) and waits.
	Kill()
	// Pause suspends the part and its children at any point of their work (SIGSTOP). Resume lets them continue.
	Pause()
	Resume()
	// Usage returns the part's cost since its last start.
	Usage() (Usage, error)
}

// Usage is the cost of a part, as the operating system counts it.
type Usage struct {
	// CPU is the user and system time of the part and its children.
	CPU time.Duration
	// RSS is the resident memory in bytes. Pages that several processes of the part share are counted once.
	RSS int64
}

// Add returns the sum of two usages.
func (u Usage) Add(other Usage) Usage { return Usage{u.CPU + other.CPU, u.RSS + other.RSS} }

// Total returns the usage of several parts. A stopped part counts as zero.
func Total(parts ...Part) Usage {
	var total Usage
	for _, part := range parts {
		if usage, err := part.Usage(); err == nil {
			total = total.Add(usage)
		}
	}
	return total
}

const (
	// pollInterval is how often a starting part is checked for readiness.
	pollInterval = 20 * time.Millisecond
	// restartPause is the wait after a failed start.
	restartPause = 200 * time.Millisecond
	// stopTimeout is the time limit for a part to end after Stop; a gateway drains for up to 10 s.
	stopTimeout = 30 * time.Second
)

// Sleep waits for d. If ctx ends first, it returns the context's error.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newSecret() string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}
