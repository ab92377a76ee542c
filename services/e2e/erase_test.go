package e2e_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/gateway"
)

// found lists the places in the database, "table seq" or "table", that contain a text.
func (f *floor) found(said string) (places []string) {
	f.t.Helper()
	db, err := sql.Open("sqlite", "file:"+f.file+"?_pragma=busy_timeout(5000)&_pragma=query_only(1)")
	require.NoError(f.t, err)
	defer db.Close()
	var tables []string
	names, err := db.QueryContext(f.t.Context(), "SELECT name FROM sqlite_schema WHERE type = 'table'")
	require.NoError(f.t, err)
	defer names.Close()
	for names.Next() {
		var name string
		require.NoError(f.t, names.Scan(&name))
		tables = append(tables, name)
	}
	require.NoError(f.t, names.Err())
	for _, table := range tables {
		places = append(places, f.foundIn(db, table, said)...)
	}
	return places
}

// foundIn searches all columns of a table.
func (f *floor) foundIn(db *sql.DB, table, said string) (places []string) {
	f.t.Helper()
	rows, err := db.QueryContext(f.t.Context(), "SELECT * FROM "+table) //nolint:unqueryvet // a new column counts as well
	require.NoError(f.t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(f.t, err)
	for rows.Next() {
		cells, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		require.NoError(f.t, rows.Scan(into...))
		place, here := table, false
		for i, cell := range cells {
			if columns[i] == "seq" {
				place = fmt.Sprint(table, " ", cell)
			}
			if data, isBytes := cell.([]byte); isBytes {
				cell = string(data)
			}
			here = here || strings.Contains(fmt.Sprint(cell), said)
		}
		if here {
			places = append(places, place)
		}
	}
	require.NoError(f.t, rows.Err())
	return places
}

// Content that an operator erases is removed from the database for all readers, and the log still verifies.
func TestErasedContentIsGoneAndTheLogVerifies(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	h.ready(c)
	url := "ws://" + h.door(nil).Addr().String() + gateway.Path
	ann, bob := open(t, url, "ann", frame.Proto, nil), open(t, url, "bob", frame.JSON, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const secret = "a-secret"
	id, err := ann.CreateGroup(ctx, secret+" name", "bob")
	require.NoError(t, err)
	ann.done(id, text(secret+" one"))       // 2
	bob.done(id, text("harmless"))          // 3
	bob.done(id, text(secret+" of bob"))    // 4
	ann.done(id, edit(2, secret+" edited")) // 5
	bob.done(id, react(2, secret))          // 6
	require.Equal(t, []string{"conversations", "events 1", "events 2", "events 4", "events 5", "events 6", "reactions 6"}, h.found(secret))

	erase := func(commandID string, what *conversationv1.Erase) *conversationv1.Outcome {
		t.Helper()
		answer, err := c.Erase(ctx, &adminv1.EraseRequest{ConversationId: id, CommandId: commandID, Erase: what})
		require.NoError(t, err)
		require.Nil(t, answer.GetOutcome().GetError())
		return answer.GetOutcome()
	}
	bySeq := uuid.Must(uuid.NewV7()).String()
	require.EqualValues(t, 7, erase(bySeq, &conversationv1.Erase{Seqs: []uint64{1, 2, 5}}).GetSeq())
	require.Equal(t, []string{"events 4", "events 6", "reactions 6"}, h.found(secret))
	again := erase(bySeq, &conversationv1.Erase{Seqs: []uint64{1, 2, 5}})
	require.EqualValues(t, 7, again.GetSeq())
	require.True(t, again.GetRepeated())
	require.EqualValues(t, 8, erase(uuid.Must(uuid.NewV7()).String(), &conversationv1.Erase{Sender: "bob"}).GetSeq())
	require.Empty(t, h.found(secret))
	require.Empty(t, h.found("harmless"), "it was bob's as well")
	late, err := ann.Send(ctx, id, "late")
	require.NoError(t, err)
	require.EqualValues(t, 9, late.GetSeq())
	before := late.GetTimeMs() + 1
	require.Eventually(t, func() bool { return time.Now().UnixMilli() > before }, patience, time.Millisecond, "nothing is erased in advance")
	require.EqualValues(t, 10, erase(uuid.Must(uuid.NewV7()).String(), &conversationv1.Erase{BeforeMs: before}).GetSeq())
	require.Empty(t, h.found("late"))

	verified, err := c.VerifyConversation(ctx, &adminv1.VerifyConversationRequest{ConversationId: id})
	require.NoError(t, err)
	require.Empty(t, verified.GetFaults())
	require.EqualValues(t, 10, verified.GetChecked())
	require.EqualValues(t, 7, verified.GetErased())

	// Connected clients have seen the content, and receive the erasure; later readers see that something was erased.
	for _, p := range []*program{ann, bob} {
		events := p.upTo(10)
		require.Equal(t, secret+" one", events[1].GetBody().GetMessage().GetText())
		require.Equal(t, []uint64{1, 2, 5}, events[6].GetBody().GetErase().GetSeqs())
		require.Equal(t, "@server", events[6].GetSender())
	}
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		again := open(t, url, "ann", codec, nil)
		for i, event := range again.upTo(10) {
			want := chain.Erased
			if i >= 6 && i != 8 {
				want = chain.Verified
			}
			require.Equal(t, want, event.Content, "seq %d", event.GetSeq())
		}
		page, err := again.ReadMessagesAfter(ctx, id, 0, 50)
		require.NoError(t, err)
		require.Len(t, page.GetMessages(), 4)
		for _, message := range page.GetMessages() {
			require.True(t, message.GetErased(), "seq %d", message.GetSeq())
			require.Nil(t, message.GetMessage())
			require.Empty(t, message.GetReactions())
		}
	}
	ann.refused(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, id, edit(2, "again"))
}

func TestOnlyOperatorsErase(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	h.ready(c)
	ann := h.door(nil).login(t, "ann")
	id := h.newGroup("bob")
	answer := ann.ask(submit(id, &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Seqs: []uint64{1}}}}))
	code := answer.GetError().GetCode()
	if answer.GetOutcome() != nil {
		code = answer.GetOutcome().GetError().GetCode()
	}
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, code, "%v", answer)
	for _, bad := range []*adminv1.EraseRequest{
		{ConversationId: id, CommandId: uuid.Must(uuid.NewV7()).String()},
		{ConversationId: id, CommandId: "x", Erase: &conversationv1.Erase{Seqs: []uint64{1}}},
		{ConversationId: "x", CommandId: uuid.Must(uuid.NewV7()).String(), Erase: &conversationv1.Erase{Seqs: []uint64{1}}},
	} {
		_, err := c.Erase(t.Context(), bad)
		requireCode(t, codes.InvalidArgument, err)
	}
	refused, err := c.Erase(t.Context(), &adminv1.EraseRequest{
		ConversationId: id, CommandId: uuid.Must(uuid.NewV7()).String(), Erase: &conversationv1.Erase{Seqs: []uint64{99}},
	})
	require.NoError(t, err)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_INVALID, refused.GetOutcome().GetError().GetCode())
}
