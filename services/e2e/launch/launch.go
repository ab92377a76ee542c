// Package launch runs Runnel as in production: every service as a separate process, with real NATS servers, SQLite
// or PostgreSQL, on free loopback ports. System tests and the benchmark start it, measure its cost, and stop, kill or pause
// its parts.
//
//	build.go     programs from the workspace, with build tags
//	process.go   one program: Process
//	postgres.go  one PostgreSQL server: Postgres
//	nats.go      NATS servers, one or a cluster
//	links.go     the network between the parts: a proxy on every connection
//	proc.go      CPU and memory from the operating system, signals to whole families of processes
//	suite.go     services that work together: Start, StartStandalone
//
// It does not depend on the inside of a service: it uses only flags, signals, /readyz, /metrics and /proc.
package launch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Part is one running server of a suite. Its methods may be called by one goroutine at a time, except Usage and Name.
type Part interface {
	// Name is the part's unique name: "gateway-1".
	Name() string
	// Restart starts it again after Stop or Kill, on the same ports and data, and waits until it is ready. A start that fails is
	// repeated until ctx ends, as an orchestrator would.
	Restart(ctx context.Context) error
	// Stop asks the part to end (SIGTERM) and waits. A part that does not end in time is killed, and that is an error.
	Stop() error
	// Kill ends it without warning (SIGKILL) and waits.
	Kill()
	// Pause stops it at any point of its work (SIGSTOP), including children; Resume lets it continue.
	Pause()
	Resume()
	// Usage returns its cost since it was last started.
	Usage() (Usage, error)
}

// Usage is the cost of a part, as the operating system counts it.
type Usage struct {
	// CPU is user and system time of the part and its children.
	CPU time.Duration
	// RSS is the memory held in RAM, in bytes; pages that the part's processes share are counted once.
	RSS int64
}

// Add sums up.
func (u Usage) Add(other Usage) Usage { return Usage{u.CPU + other.CPU, u.RSS + other.RSS} }

// Total returns the usage of several parts. A part that is down counts as zero.
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
	// pollInterval is the interval at which a starting part is asked whether it is ready.
	pollInterval = 20 * time.Millisecond
	// restartPause is how long to wait after a failed start.
	restartPause = 200 * time.Millisecond
	// stopTimeout is how long a part may take to end by itself; a gateway drains for up to 10 s.
	stopTimeout = 30 * time.Second
)

// Sleep waits for d, or until ctx ends; then it returns the context's error.
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
