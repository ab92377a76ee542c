package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/standalone"
)

// screen is a terminal whose output a test waits for.
type screen struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *screen) waitFor(t *testing.T, want string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		text := s.text.String()
		s.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-s.changed:
		case <-late:
			t.Fatalf("%q did not appear in:\n%s", want, text)
		}
	}
}

// person is a chat user with a keyboard and a screen.
type person struct {
	keys   io.WriteCloser
	screen *screen
	done   chan error
}

func sit(t *testing.T, url, dataDir, user, with string) *person {
	t.Helper()
	in, keys := io.Pipe()
	p := &person{keys: keys, screen: &screen{changed: make(chan struct{}, 1)}, done: make(chan error, 1)}
	command := chatCommand{User: user, With: with, URL: url, DataDir: dataDir}
	go func() { p.done <- command.chat(t.Context(), in, p.screen) }()
	return p
}

func (p *person) write(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(p.keys, line+"\n")
	require.NoError(t, err)
}

func TestTwoTerminalsChatWithTicks(t *testing.T) {
	var cfg standalone.Config
	parser, err := settings.New("test", "", &cfg)
	require.NoError(t, err)
	_, err = parser.Parse(nil)
	require.NoError(t, err)
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	cfg.Gateway.Listen, cfg.RPC.Listen, cfg.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0", ""
	server, err := standalone.New(t.Context(), cfg, telemetry.Discard())
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx) }()

	url := "ws://" + server.Addr().String() + "/v1/ws"
	alice := sit(t, url, cfg.DataDir, "alice", "bob")
	alice.screen.waitFor(t, "you are talking with bob")
	bob := sit(t, url, cfg.DataDir, "bob", "alice")
	bob.screen.waitFor(t, "you are talking with alice")
	alice.write(t, "hello bob")
	bob.screen.waitFor(t, "alice: hello bob")
	alice.screen.waitFor(t, "✓ committed as 2: hello bob")
	alice.screen.waitFor(t, "✓✓ read 1 of 1: hello bob")
	bob.write(t, "hi alice")
	alice.screen.waitFor(t, "#3 bob: hi alice")
	bob.screen.waitFor(t, "✓ committed as 3: hi alice")
	bob.write(t, "/edit 3 hello alice")
	alice.screen.waitFor(t, "bob edited #3: hello alice")
	alice.write(t, "/react 3 👋")
	bob.screen.waitFor(t, "alice reacted to #3 with 👋")
	alice.write(t, "/unreact #3 👋")
	bob.screen.waitFor(t, "alice removed 👋 from #3")
	bob.write(t, "/delete 3")
	alice.screen.waitFor(t, "bob deleted #3")
	bob.write(t, "/edit three")
	bob.screen.waitFor(t, "! /edit needs the number of a message")
	bob.write(t, "/edit 2 not mine")
	bob.screen.waitFor(t, "! refused: forbidden")
	bob.write(t, "/group friends alice carol")
	alice.screen.waitFor(t, "[friends] bob created it")
	bob.write(t, "/add dave")
	alice.screen.waitFor(t, "[friends] bob added dave")
	bob.write(t, "/leave")
	alice.screen.waitFor(t, "[friends] bob is out")
	bob.screen.waitFor(t, "you are no longer in")
	bob.write(t, "/list")
	bob.screen.waitFor(t, "1  alice")
	// The deleted message, its edit and both events of its reaction have no content any more, and still verify.
	check := verifyCommand{What: "alice", HistoryAddress: server.RPCAddr()}
	var report strings.Builder
	require.NoError(t, check.run(t.Context(), &report))
	require.Contains(t, report.String(), "       7 events: 3 verified, 0 not checked, 4 erased; no hole, every hash is correct\n")
	check.JSON = true
	report.Reset()
	require.NoError(t, check.run(t.Context(), &report))
	require.Contains(t, report.String(), `"events":7,"content_verified":3,"content_not_checked":0,"erased":4,"verified":true}`)
	for _, p := range []*person{alice, bob} {
		p.write(t, "/quit")
		require.NoError(t, <-p.done)
	}
	stop()
	require.NoError(t, <-served)
}

func TestReachedCountsTheStaircase(t *testing.T) {
	steps := []*conversationv1.Step{{Seq: 9, Members: 1}, {Seq: 5, Members: 3}}
	require.Equal(t, 0, reached(steps, 10))
	require.Equal(t, 1, reached(steps, 6))
	require.Equal(t, 3, reached(steps, 5))
	require.Equal(t, 3, reached(steps, 1))
}
