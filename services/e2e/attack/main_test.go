package attack_test

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// workshop is the directory of the programs that tests build.
var workshop string

// programs builds the real programs, once.
var programs = sync.OnceValues(func() (built launch.Binaries, err error) {
	if workshop, err = os.MkdirTemp("", "runnel-attack-"); err != nil {
		return nil, err
	}
	return launch.Build(context.Background(), workshop, "", launch.Standalone, launch.Gateway, launch.Delivery, launch.History)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if workshop != "" {
		_ = os.RemoveAll(workshop)
	}
	os.Exit(code)
}
