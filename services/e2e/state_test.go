package e2e_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/standalone"
)

// TestStoredStateStaysReadable opens a data directory of the first state that must stay readable (proto/README.md). It was
// written by standalone: a direct conversation with an edit, a reaction, a deletion, a refusal and an erasure, and a group.
// The file is never regenerated: a version that cannot open it needs a migration.
func TestStoredStateStaysReadable(t *testing.T) {
	dir := t.TempDir()
	unpack(t, "testdata/state-1.tar.gz", dir)
	s := start(t, func(cfg *standalone.Config) { cfg.DataDir = dir })
	direct := conversation.DirectID("alice", "bob")

	for user, codec := range map[string]frame.Codec{"alice": frame.Proto, "bob": frame.JSON} {
		p := open(t, s.url(), user, codec, nil)
		contents, texts := map[uint64]chain.Content{}, map[uint64]string{}
		group := ""
		for range 10 { // 8 of the direct conversation, 2 of the group
			event := p.next()
			if ids.Conversation(event.GetConversationId()) != direct {
				group = event.GetConversationId()
				continue
			}
			contents[event.GetSeq()] = event.Content
			texts[event.GetSeq()] = event.GetBody().GetMessage().GetText() + event.GetBody().GetEdit().GetText()
		}
		require.NotEmpty(t, group, user)
		for seq := uint64(1); seq <= 8; seq++ {
			want := chain.Verified
			if seq == 3 || seq == 7 { // one deleted, one erased
				want = chain.Erased
			}
			require.Equal(t, want, contents[seq], "%s, seq %d", user, seq)
		}
		require.Equal(t, "hello", texts[2])
		require.Equal(t, "hello dear bob", texts[4])

		ctx, cancel := p.patient()
		page, err := p.ReadMessagesAfter(ctx, string(direct), 0, 50)
		require.NoError(t, err)
		require.Len(t, page.GetMessages(), 3)
		first, deleted, erased := page.GetMessages()[0], page.GetMessages()[1], page.GetMessages()[2]
		require.Equal(t, "hello dear bob", first.GetMessage().GetText())
		require.Equal(t, "👍", first.GetReactions()[0].GetEmoji())
		require.Equal(t, uint64(6), deleted.GetDeletedSeq())
		require.True(t, erased.GetErased())
		cancel()
	}

	// The conversation continues after its last event, also for an event that refers to one stored then.
	p := open(t, s.url(), "alice", frame.Proto, nil)
	ctx, cancel := p.patient()
	defer cancel()
	outcome, err := p.Edit(ctx, string(direct), 2, "hello again")
	require.NoError(t, err)
	require.Equal(t, uint64(9), outcome.GetSeq())
	_, err = p.Edit(ctx, string(direct), 3, "not that one")
	require.ErrorContains(t, err, "the message was deleted")
}

// unpack writes the files of an archive below a directory.
func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	file, err := os.Open(archive)
	require.NoError(t, err)
	defer file.Close()
	content, err := gzip.NewReader(file)
	require.NoError(t, err)
	for files := tar.NewReader(content); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		path := filepath.Join(dir, filepath.Clean("/"+header.Name))
		if header.Typeflag == tar.TypeDir {
			require.NoError(t, os.MkdirAll(path, 0o700))
			continue
		}
		data, err := io.ReadAll(files)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
}
