//go:build !linux

package load

import (
	"context"
	"errors"
)

// The load generator needs Linux; this file lets the package compile elsewhere.
type Loop struct{}

var errLinux = errors.New("the load generator needs Linux")

// NewLoop returns an error.
func NewLoop(Handler) (*Loop, error) { return nil, errLinux }

func (*Loop) Handle(Handler)          {}
func (*Loop) Do(func())               {}
func (*Loop) Connect(*Client, string) {}
func (*Loop) Disconnect(...*Client)   {}
func (*Loop) Failures() error         { return errLinux }
func (*Loop) Bytes() uint64           { return 0 }
func (*Loop) Repeats() uint64         { return 0 }
func (*Loop) Close()                  {}

// Pace returns an error.
func Pace(context.Context, int, func(int) error) (int, error) { return 0, errLinux }
