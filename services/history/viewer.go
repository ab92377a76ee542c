package history

import (
	"context"
	"errors"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// errNoViewer refuses a gateway that wants to read a conversation without naming the user for whom it reads.
var errNoViewer = errors.New("viewer: a gateway must name the user for whom it reads")

// checkViewer checks that the caller may read as the given viewer. Only workers and operators may read without one: a
// gateway, also one whose certificate was stolen, gets only what the named user may see.
func checkViewer(ctx context.Context, viewer string) error {
	if viewer == "" && !rpc.ActsAs(ctx, rpc.RoleDelivery, rpc.RoleAdmin) {
		return errNoViewer
	}
	return checkOptionalUser("viewer", viewer)
}
