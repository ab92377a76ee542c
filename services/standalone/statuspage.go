package standalone

import (
	"slices"

	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/gateway/operator"
	"github.com/runnelhq/runnel/services/history"
)

// stages are the way of a message through the process: from the gateway's frame to the recipients. The stage of the store is left
// out, because a commit is nothing else here.
func stages() []statuspage.Stage { return statuspage.Merge(operator.Stages(), delivery.Stages()) }

// charts are the charts of all services, those that are not folded away first.
func charts() []statuspage.Chart {
	return slices.Concat(operator.Charts(), delivery.Charts(), history.Charts())
}
