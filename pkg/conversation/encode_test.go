package conversation

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func encoded(t *testing.T, body *conversationv1.Body) []byte {
	t.Helper()
	data, err := EncodeBody(body)
	require.NoError(t, err)
	return data
}

// Bodies are compared by what they say. One that contains something unknown equals only its own bytes.
func TestSameBody(t *testing.T) {
	message := func(text string) []byte {
		return encoded(t, &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}})
	}
	unknown := []byte{0xf8, 0x7f, 0x01} // a field that no build knows
	x, y := message("x"), message("y")
	twice := slices.Concat(x, x) // the same field twice is the same message
	for name, c := range map[string]struct {
		a, b []byte
		want bool
	}{
		"the same bytes":                         {x, x, true},
		"another text":                           {x, y, false},
		"the same text in other bytes":           {x, twice, true},
		"an unknown field, the same bytes":       {unknown, unknown, true},
		"an unknown field on one side":           {x, slices.Concat(x, unknown), false},
		"an unknown field, in other bytes":       {slices.Concat(x, unknown), slices.Concat(twice, unknown), false},
		"an unknown field and nothing":           {unknown, nil, false},
		"not a body":                             {x, []byte{0xff}, false},
		"neither is a body":                      {[]byte{0xff}, []byte{0xfe}, false},
		"nothing, and what is not a body either": {nil, []byte{0xff}, false},
	} {
		require.Equal(t, c.want, SameBody(c.a, c.b), name)
		require.Equal(t, c.want, SameBody(c.b, c.a), "%s, the other way round", name)
	}
}

// Two entries of metadata have one encoding, whatever the order of the map.
func TestEncodingsAreCanonical(t *testing.T) {
	metadata := map[string]string{"a": "1", "b": "2"}
	for name, body := range map[string]*conversationv1.Body{
		"message": {Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "x", Metadata: metadata}}},
		"edit":    {Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 2, Text: "x", Metadata: metadata}}},
	} {
		first := encoded(t, body)
		for range 50 {
			require.Equal(t, first, encoded(t, body), name)
		}
	}
}
