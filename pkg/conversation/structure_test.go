package conversation

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
)

// A verifier accepts an event without content only of a kind that can be erased. Its list must be that of the table.
func TestVerifiersKnowWhatCannotBeErased(t *testing.T) {
	for _, kind := range Kinds() {
		require.Equal(t, rowOf(kind).class == Structure, chain.IsStructure(kind), "%s", kind)
	}
}
