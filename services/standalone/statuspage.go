package standalone

import (
	"slices"

	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/gateway/operator"
	"github.com/runnelhq/runnel/services/history"
)

// stages returns the stages of a message's path through the process, from the gateway's frame to the recipients. The
// stage of the store is left out, because in this process it is the same as the commit.
func stages() []statuspage.Stage { return statuspage.Merge(operator.Stages(), delivery.Stages()) }

// charts returns the charts of all services, with the unfolded charts first.
func charts() []statuspage.Chart {
	return slices.Concat(operator.Charts(), delivery.Charts(), history.Charts())
}
