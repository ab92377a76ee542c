package history

import (
	"context"
	"errors"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// errNoViewer refuses a gateway that wants to read a conversation without naming the user for whom it reads.
var errNoViewer = errors.New("viewer: a gateway must name the user for whom it reads")

// checkViewer checks that the caller may read as the given viewer. Only workers and operators may read without a viewer.
// A gateway gets only what the named user may see, so a stolen gateway certificate reads no more.
func checkViewer(ctx context.Context, viewer string) error {
	if viewer == "" && !rpc.ActsAs(ctx, rpc.RoleDelivery, rpc.RoleAdmin) {
		return errNoViewer
	}
	return checkOptionalUser("viewer", viewer)
}
