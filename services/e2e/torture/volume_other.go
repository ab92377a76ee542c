//go:build !linux

package torture

import (
	"fmt"
	"time"
)

type volume struct {
	dir      string
	patience time.Duration
}

func canMount() error { return fmt.Errorf("%w: needs Linux", ErrSkipped) }

func makeVolume(string, string, int64) (*volume, error) { return nil, canMount() }

func (v *volume) mount() error     { return canMount() }
func (v *volume) unmount() error   { return nil }
func (v *volume) losePower() error { return canMount() }
func (v *volume) sync() error      { return canMount() }
func (v *volume) fill() error      { return canMount() }
func (v *volume) free() error      { return canMount() }
