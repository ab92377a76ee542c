package protocol_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/runnelhq/runnel/pkg/protocol"
)

// notAnnounced are the rows of the table that Connected.limits does not contain, with the reason.
var notAnnounced = map[string]string{
	"hash_prefix_bytes":           "a fixed length",
	"conversation_id_bytes":       "a fixed length",
	"command_id_bytes":            "a fixed length",
	"max_seq":                     "part of the format",
	"max_erase_seqs":              "only internal services may ask for it",
	"max_connected_conversations": "of an answer: Connected.more says that there are others",
	"max_reaction_summaries":      "of an answer",
	"default_events_page":         "of an answer: the request set no limit",
	"default_list_page":           "of an answer: the request set no limit",
	"default_messages_page":       "of an answer: the request set no limit",
}

// configured are the fields of Connected.limits that come from the configuration of the gateway.
var configured = []string{
	"max_connections_per_user", "max_conversations_per_user", "frame_rate", "command_rate", "read_rate", "add_rate",
}

// TestEveryLimitIsAnnounced: a client learns each limit that it can reach from the gateway, under the name of the reference.
func TestEveryLimitIsAnnounced(t *testing.T) {
	message := protocol.NewLimits().ProtoReflect()
	fields := message.Descriptor().Fields()
	var named []string
	for _, limit := range protocol.Limits {
		field := fields.ByName(protoreflect.Name(limit.Name))
		if notAnnounced[limit.Name] != "" {
			require.Nil(t, field, "%s is announced after all", limit.Name)
			continue
		}
		require.NotNil(t, field, "%s is missing in Limits", limit.Name)
		require.Equal(t, limit.Value, message.Get(field).Uint(), limit.Name)
		named = append(named, limit.Name)
	}
	for i := range fields.Len() {
		name := string(fields.Get(i).Name())
		if message.Has(fields.Get(i)) {
			require.Contains(t, named, name)
		} else {
			require.Contains(t, configured, name)
		}
	}
}
