package conversation

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
)

// A verifier accepts an event without content only if its kind can be erased. The verifier's list of other kinds must
// match the table.
func TestVerifiersKnowWhatCannotBeErased(t *testing.T) {
	for _, kind := range Kinds() {
		require.Equal(t, rowOf(kind).class == Structure, chain.IsStructure(kind), "%s", kind)
	}
}
