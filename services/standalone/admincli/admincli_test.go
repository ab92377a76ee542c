package admincli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/standalone/admincli"
)

const (
	conversationID = "g1a2b3c4d5e6f7g8h9i0j1k2l3m"
	commandID      = "0192f3c0-5b1e-7c42-9a7e-0123456789ab"
)

func missing() []*adminv1.Missing {
	return []*adminv1.Missing{{Instance: "gateway-c", Service: "gateway", Reason: "no answer within 2s"}}
}

func workers() []*historyv1.Worker {
	return []*historyv1.Worker{{Worker: "worker-1", LiveForMs: 1840}, {Worker: "worker-2-with-a-long-name", LiveForMs: 400}}
}

func partition(n uint32, owner, state string, lag uint64) *adminv1.Partition {
	p := &adminv1.Partition{Partition: n, Owner: owner, Watermark: 1000, State: state, Lag: lag}
	if owner != "" {
		p.StreamLast = 1000 + lag
	}
	return p
}

func connection(id, user, gateway string) *adminv1.Connection {
	return &adminv1.Connection{Gateway: gateway, Connection: &gatewayv1.Connection{
		ConnectionId: id, UserId: user, DeviceId: "phone", Remote: "203.0.113.9", Client: "runnel-go", Protocol: "runnel.v1.proto",
		SinceMs: ms(125 * time.Minute), QueuedBytes: 70_000, Conversations: 3,
	}}
}

func cursor(user string, delivered, read uint64) *conversationv1.Cursor {
	c := &conversationv1.Cursor{UserId: user, DeliveredSeq: delivered, ReadSeq: read}
	if delivered > 0 {
		c.DeliveredTimeMs = ms(90 * time.Second)
	}
	return c
}

func letter(n int) *historyv1.StoredDeadLetter {
	return &historyv1.StoredDeadLetter{
		DeadLetterId: fmt.Sprintf("003-5Jd0-%020d", n), Partition: 3, Stream: "5Jd0", TimeMs: ms(26 * time.Hour), PayloadBytes: 312,
		Letter: &historyv1.DeadLetter{Sequence: uint64(n), Reason: "the store refused it 5 times: value out of range"},
	}
}

func TestTablesAndJSON(t *testing.T) {
	both(t, "status", &adminv1.GetStatusResponse{
		Gateways: []*gatewayv1.GetGatewayResponse{
			{Gateway: "gateway-a", StartedMs: ms(75 * time.Hour), Connections: 1204, Users: 900, Conversations: 2011, QueuedBytes: 3 << 20, Version: "v0.3.0"},
			{Gateway: "gateway-b", StartedMs: ms(time.Minute), Draining: true},
		},
		Workers: workers(),
		Partitions: []*adminv1.Partition{
			partition(0, "worker-1", "running", 0), partition(1, "worker-1", "running", 0),
			partition(2, "worker-2-with-a-long-name", "running", 17), partition(3, "", "no owner", 0),
			partition(4, "worker-1", "stopped: the stream has a hole at 88", 5),
		},
		DeadLetters: 2, WorkerVersions: map[string]string{"worker-1": "v0.3.0"},
	}, "status")
	both(t, "status-quiet", &adminv1.GetStatusResponse{Workers: workers()[:1], Partitions: []*adminv1.Partition{partition(0, "worker-1", "running", 0)}}, "status")
	both(t, "status-missing", &adminv1.GetStatusResponse{Missing: missing(), DeadLetters: 1000}, "status")

	both(t, "connections-list", &adminv1.ListConnectionsResponse{
		Connections: []*adminv1.Connection{connection("0192-a", "bob", "gateway-a"), connection("0192-b", "", "gateway-b")},
		More:        []string{"gateway-a"},
	}, "connections", "list")
	both(t, "connections-none", &adminv1.ListConnectionsResponse{Missing: missing()}, "connections", "list", "--user", "bob")
	both(t, "connections-inspect", &adminv1.GetConnectionResponse{
		Connection: connection("0192-a", "bob", "gateway-a"),
		Standings: []*gatewayv1.Standing{
			{ConversationId: conversationID, Head: 44, Sent: 42, Acknowledged: 40, Retries: 1},
			{ConversationId: "d0000000000000000000000000a", Head: 3, Sent: 3, Acknowledged: 3},
		},
	}, "connections", "inspect", "0192-a")
	both(t, "connections-disconnect", &adminv1.DisconnectResponse{Closed: 2}, "connections", "disconnect", "--user", "bob", "--stay-away")
	both(t, "connections-disconnect-none", &adminv1.DisconnectResponse{}, "connections", "disconnect", "0192-x")

	both(t, "users-sessions", &adminv1.GetUserResponse{
		Connections: []*adminv1.Connection{connection("0192-a", "bob", "gateway-a")}, RevokedBeforeMs: ms(10 * time.Second),
	}, "users", "sessions", "bob")
	both(t, "users-sessions-none", &adminv1.GetUserResponse{}, "users", "sessions", "bob")
	both(t, "users-revoke", &adminv1.RevokeUserResponse{BeforeMs: ms(0), Closed: 1, Missing: missing()}, "users", "revoke", "bob")

	both(t, "conversations-list", &adminv1.ListConversationsResponse{Conversations: []*historyv1.Summary{
		{ConversationId: "d0000000000000000000000000a", Kind: conversationv1.Kind_KIND_DIRECT, Peer: "alice", Head: 12, JoinedSeq: 1, Members: 2, Cursor: cursor("bob", 12, 9)},
		{ConversationId: conversationID, Kind: conversationv1.Kind_KIND_GROUP, Name: "friends\x1b[2J\tof \u202Ebob", Head: 44, JoinedSeq: 40, Members: 7},
	}}, "conversations", "list", "--user", "bob")
	both(t, "conversations-show", &adminv1.GetConversationResponse{
		State: &historyv1.ConversationState{
			ConversationId: conversationID, Kind: conversationv1.Kind_KIND_GROUP, Name: "friends", Creator: "alice", Head: 44,
			HeadHash: []byte{0xab, 0xcd}, Members: []*historyv1.Member{{JoinedSeq: 1, Cursor: cursor("alice", 44, 44)}, {JoinedSeq: 40, Cursor: cursor("bob", 0, 0)}},
		}, Members: 5, Partition: 3,
	}, "conversations", "show", conversationID)
	both(t, "conversations-members", &adminv1.ListMembersResponse{Head: 44, Members: []*historyv1.Member{
		{JoinedSeq: 1, Cursor: cursor("alice", 44, 44)}, {JoinedSeq: 40, Cursor: cursor("bob", 42, 0)}, {JoinedSeq: 41, Cursor: cursor("carol", 0, 0)},
	}}, "conversations", "members", conversationID)
	both(t, "conversations-verify", &adminv1.VerifyConversationResponse{Checked: 44, CheckedHash: []byte{1}, Head: 44, Erased: 2}, "conversations", "verify", conversationID)
	both(t, "conversations-verify-faults", &adminv1.VerifyConversationResponse{Checked: 44, CheckedHash: []byte{1}, Head: 44, Faults: []*adminv1.Fault{
		{Seq: 7, Problem: "it is missing"}, {Seq: 9, Problem: "its hash does not fit its header"},
	}}, "conversations", "verify", conversationID)

	wanted := partition(1, "worker-1", "running", 0)
	wanted.Wanted = "worker-2-with-a-long-name"
	both(t, "partitions-list", &adminv1.ListPartitionsResponse{
		Workers: workers(), Partitions: []*adminv1.Partition{partition(0, "worker-1", "running", 3), wanted, partition(2, "", "no owner", 0)},
	}, "partitions", "list")
	both(t, "partitions-move", &adminv1.MovePartitionResponse{Moved: true}, "partitions", "move", "3", "worker-2")
	both(t, "partitions-move-later", &adminv1.MovePartitionResponse{}, "partitions", "move", "3", "worker-2")
	both(t, "partitions-move-any", &adminv1.MovePartitionResponse{}, "partitions", "move", "3", "--any")

	both(t, "dead-letters-list", &adminv1.ListDeadLettersResponse{DeadLetters: []*historyv1.StoredDeadLetter{letter(881), letter(902)}}, "dead-letters", "list", "--partition", "3")
	both(t, "dead-letters-none", &adminv1.ListDeadLettersResponse{}, "dead-letters", "list")
	both(t, "dead-letters-show", &adminv1.GetDeadLetterResponse{
		DeadLetter: letter(881), ConversationId: conversationID, Sender: "alice", CommandId: commandID,
		Body: &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "hi \x1b[31mred", ReplyTo: 4}}},
	}, "dead-letters", "show", "003-5Jd0-00000000000000000881")
	both(t, "dead-letters-show-undecodable", &adminv1.GetDeadLetterResponse{DeadLetter: letter(881)}, "dead-letters", "show", "003-5Jd0-00000000000000000881")
	both(t, "dead-letters-retry", &adminv1.RetryDeadLetterResponse{Outcome: &conversationv1.Outcome{ConversationId: conversationID, Seq: 45}}, "dead-letters", "retry", "x")
	both(t, "dead-letters-retry-repeated", &adminv1.RetryDeadLetterResponse{Outcome: &conversationv1.Outcome{ConversationId: conversationID, Seq: 45, Repeated: true}}, "dead-letters", "retry", "x")
	both(t, "dead-letters-retry-refused", &adminv1.RetryDeadLetterResponse{Outcome: &conversationv1.Outcome{Error: &conversationv1.Error{
		Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, Message: "only the owner may do that",
	}}}, "dead-letters", "retry", "x")
	both(t, "dead-letters-drop", &adminv1.DropDeadLetterResponse{}, "dead-letters", "drop", "003-5Jd0-00000000000000000881", "--yes")

	both(t, "level", &adminv1.GetLevelResponse{Level: 1, Parts: []*adminv1.PartLevel{
		{Instance: "worker-1", Service: "delivery", Level: 2, Version: "0.2.0"}, {Instance: "gateway-a", Service: "gateway", Level: 1},
	}}, "level")
	both(t, "level-missing", &adminv1.GetLevelResponse{Level: 1, Missing: missing()}, "level")
	both(t, "level-raise", &adminv1.RaiseLevelResponse{Level: 2}, "level", "--raise", "2")
	both(t, "erase", &adminv1.EraseResponse{Outcome: &conversationv1.Outcome{ConversationId: conversationID, Seq: 45}}, "erase", conversationID, "--seq", "4,7", "--yes")
	both(t, "erase-repeated", &adminv1.EraseResponse{Outcome: &conversationv1.Outcome{ConversationId: conversationID, Seq: 45, Repeated: true}},
		"erase", conversationID, "--sender", "bob", "--yes")
	both(t, "erase-refused", &adminv1.EraseResponse{Outcome: &conversationv1.Outcome{Error: &conversationv1.Error{
		Code: conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, Message: "no such conversation",
	}}}, "erase", conversationID, "--before", "2026-01-31", "--yes")
	both(t, "backup-mark", &adminv1.MarkBackupResponse{Marks: []*historyv1.BackupMark{
		{Watermark: &historyv1.Watermark{Stream: "1790000000000000000", Epoch: 1790000000123, Sequence: 881, TimeNs: ms(time.Minute) * 1e6}},
		{Partition: 1, Watermark: &historyv1.Watermark{Stream: "1790000000000000001", Epoch: 1790000000124, Sequence: 12, TimeNs: ms(time.Hour) * 1e6}},
	}}, "backup", "mark", "--now")
	both(t, "backup-mark-nothing", &adminv1.MarkBackupResponse{}, "backup", "mark", "--now")

	explained := explanation()
	both(t, "explain", explained, "explain", "--user", "bob", "--conversation", conversationID, "--seq", "42")
	both(t, "explain-nothing", &adminv1.ExplainResponse{
		Verdict: adminv1.Verdict_VERDICT_NOT_COMMITTED, Summary: "There is no event 99 yet: the newest is 44.", Head: 44, Missing: missing(),
	}, "explain", "--user", "bob", "--conversation", conversationID, "--seq", "99")
}

func explanation() *adminv1.ExplainResponse {
	at := func(after time.Duration) int64 { return now.Add(-3*time.Minute + after).UnixNano() }
	return &adminv1.ExplainResponse{
		Verdict: adminv1.Verdict_VERDICT_SLOW_CLOSED,
		Summary: "bob's phone was too slow: its queue was full and gateway-a closed it before the event was written. It has not come back.",
		Retries: 1, FilledLater: true, Head: 44, Worker: "worker-1",
		Event: &conversationv1.Event{
			ConversationId: conversationID, Seq: 42, TimeMs: ms(3 * time.Minute), Sender: "alice", CommandId: commandID, Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE,
		},
		Commit: &deliveryv1.Commit{Sequence: 881, Batch: 3, Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		Cursor: cursor("bob", 41, 39),
		Gateways: []*gatewayv1.ExplainResponse{
			{Gateway: "gateway-a", RemembersSinceMs: ms(time.Hour), ConnectionsSinceMs: ms(3 * time.Hour), Trails: []*gatewayv1.Trail{
				{
					ConnectionId: "0192-a", DeviceId: "phone", OpenedMs: ms(2 * time.Hour), ClosedMs: ms(2 * time.Minute), CloseCode: 4001, CloseReason: "slow",
					Standing: &gatewayv1.Standing{ConversationId: conversationID, Head: 42, Sent: 42, Acknowledged: 41},
				},
				{ConnectionId: "0192-b", DeviceId: "watch", OpenedMs: ms(time.Hour)},
			}},
			{Gateway: "gateway-b", RemembersSinceMs: ms(time.Minute)},
		},
		Workers: []*deliveryv1.ExplainResponse{{Worker: "worker-1", RemembersSinceMs: ms(40 * time.Minute)}},
		Timeline: []*adminv1.TimelineEntry{
			{TimeNs: at(-2 * time.Hour), Where: "gateway-a", What: "connection 0192-a (device phone) was opened"},
			{TimeNs: at(-1300 * time.Microsecond), Where: "gateway-a", What: "a step by a clock that is behind"},
			{TimeNs: at(0), Where: "broker", What: "accepted the command as message 881 of its partition"},
			{TimeNs: at(2100 * time.Microsecond), Where: "worker-1", What: "committed"},
			{TimeNs: at(2600 * time.Microsecond), Where: "gateway-a", What: "queued to the phone (0192-a)"},
			{TimeNs: at(61 * time.Second), Where: "gateway-a", What: "closed the phone (0192-a): slow"},
		},
	}
}

func TestPagesAreTurned(t *testing.T) {
	var all []*historyv1.StoredDeadLetter
	for n := range 2500 {
		all = append(all, letter(n))
	}
	w := &worker{answer: func(request proto.Message) (proto.Message, error) {
		r := request.(*adminv1.ListDeadLettersRequest)
		from := 0
		for r.GetAfter() != "" && all[from].GetDeadLetterId() <= r.GetAfter() {
			from++
		}
		to := min(from+int(r.GetLimit()), len(all))
		return &adminv1.ListDeadLettersResponse{DeadLetters: all[from:to], More: to < len(all)}, nil
	}}
	address := serve(t, w)
	got := run(t, 0, "--address", address, "dead-letters", "list", "--limit", "5000")
	require.Zero(t, got.code)
	require.Empty(t, got.err)
	require.Equal(t, 2501, strings.Count(got.out, "\n"))
	require.Len(t, w.asked, 3)

	w.asked = nil
	got = run(t, 0, "--address", address, "dead-letters", "list", "--limit", "1500")
	require.Equal(t, 1501, strings.Count(got.out, "\n"))
	require.Equal(t, "There are more: set --limit.\n", got.err)
	require.Equal(t, uint32(500), w.asked[1].(*adminv1.ListDeadLettersRequest).GetLimit())
}

func TestVerifyGoesOnToTheHeadAndTellsHowFarItIs(t *testing.T) {
	head := uint64(25_000)
	w := &worker{answer: func(request proto.Message) (proto.Message, error) {
		r := request.(*adminv1.VerifyConversationRequest)
		if r.GetAfter() > 0 && string(r.GetAfterHash()) != strconv.FormatUint(r.GetAfter(), 10) {
			return nil, fmt.Errorf("went on after %d with hash %q", r.GetAfter(), r.GetAfterHash())
		}
		checked := min(r.GetAfter()+10_000, head)
		head += 100 // another client writes to the log during the check
		return &adminv1.VerifyConversationResponse{Checked: checked, CheckedHash: strconv.AppendUint(nil, checked, 10), Head: head, Erased: 1}, nil
	}}
	address := serve(t, w)
	got := run(t, time.Second, "--address", address, "conversations", "verify", conversationID)
	require.Equal(t, result{out: conversationID + ": 25200 events, 3 of them erased: no hole, every hash is correct\n", err: "20000 of 25200 events checked\n"}, got)

	// A check that makes no progress fails, and does not loop for ever.
	stuck := serve(t, answering(&adminv1.VerifyConversationResponse{Head: 9}))
	got = run(t, 0, "--address", stuck, "conversations", "verify", conversationID)
	require.Equal(t, result{err: "runnel: the check makes no progress beyond seq 0 of 9\n", code: 1}, got)
	many := &worker{}
	many.answer = func(request proto.Message) (proto.Message, error) {
		r := request.(*adminv1.VerifyConversationRequest)
		return &adminv1.VerifyConversationResponse{
			Checked: r.GetAfter() + 100, Head: 1 << 40, Faults: slices.Repeat([]*adminv1.Fault{{Seq: r.GetAfter() + 1, Problem: "x"}}, 100),
		}, nil
	}
	got = run(t, 0, "--address", serve(t, many), "conversations", "verify", conversationID)
	require.Equal(t, admincli.ExitFailed, got.code)
	require.Len(t, many.asked, 10, "a thousand faults are enough")
}

func TestWhatToErase(t *testing.T) {
	w := answering(&adminv1.EraseResponse{Outcome: &conversationv1.Outcome{ConversationId: conversationID, Seq: 45}})
	address := serve(t, w)
	zone := time.FixedZone("here", 3600)
	for flags, want := range map[string]*conversationv1.Erase{
		"--seq 4,7 --seq 9":             {Seqs: []uint64{4, 7, 9}},
		"--sender bob":                  {Sender: "bob"},
		"--before 2026-01-31":           {BeforeMs: time.Date(2026, 1, 31, 0, 0, 0, 0, zone).UnixMilli()},
		"--before 2026-01-31T12:00:00Z": {BeforeMs: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC).UnixMilli()},
	} {
		w.asked = nil
		got := run(t, 0, append([]string{"--address", address, "erase", conversationID, "--yes"}, strings.Fields(flags)...)...)
		require.Zero(t, got.code, got.err)
		asked := w.asked[0].(*adminv1.EraseRequest)
		require.True(t, proto.Equal(want, asked.GetErase()), "%s: %v", flags, asked.GetErase())
		require.Len(t, asked.GetCommandId(), 36)
	}
	w.asked = nil
	run(t, 0, "--address", address, "erase", conversationID, "--seq", "1", "--yes", "--command-id", commandID)
	require.Equal(t, commandID, w.asked[0].(*adminv1.EraseRequest).GetCommandId())

	lost := run(t, 0, "--address", serve(t, refusing(codes.Unavailable, "the store is away")), "erase", conversationID, "--seq", "1", "--yes")
	require.Equal(t, admincli.ExitFailed, lost.code)
	require.Contains(t, lost.err, "--command-id 0")
}

func TestMarksOfWhenTheBackupWasBegun(t *testing.T) {
	w := answering(&adminv1.MarkBackupResponse{})
	address := serve(t, w)
	path := filepath.Join(t.TempDir(), "marks.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"marks":[{"partition":3,"watermark":{"stream":"s","sequence":"7","epoch":"2"}}]}`), 0o600))
	got := run(t, 0, "--address", address, "backup", "mark", path)
	require.Zero(t, got.code, got.err)
	marks := w.asked[0].(*adminv1.MarkBackupRequest).GetMarks()
	require.Len(t, marks, 1)
	require.EqualValues(t, 7, marks[0].GetWatermark().GetSequence())
	for _, wrong := range []string{"{", `{"marks":[]}`} {
		require.NoError(t, os.WriteFile(path, []byte(wrong), 0o600))
		require.Equal(t, admincli.ExitUsage, run(t, 0, "--address", address, "backup", "mark", path).code)
	}
	require.Len(t, w.asked, 1)
}

func TestCommandLinesThatMakeNoSense(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"connections", "list", "--limit", "0"},
		{"connections", "list", "--limit", "1001"},
		{"connections", "disconnect"},
		{"connections", "disconnect", "0192-a", "--user", "bob"},
		{"conversations", "list"},
		{"partitions", "move", "3"},
		{"partitions", "move", "3", "worker-1", "--any"},
		{"partitions", "move", "x", "worker-1"},
		{"dead-letters", "drop", "003-5Jd0-00000000000000000881"},
		{"explain", "--user", "bob"},
		{"level", "--raise", "x"},
		{"erase", conversationID, "--yes"},
		{"erase", conversationID, "--seq", "4"},
		{"erase", conversationID, "--seq", "4", "--sender", "bob", "--yes"},
		{"erase", conversationID, "--before", "yesterday", "--yes"},
		{"backup", "mark", "no such file"},
		{"backup", "mark"},
		{"backup", "mark", "marks.json", "--now"},
		{"explain", "--user", "bob", "--conversation", conversationID, "--seq", "-1"},
	} {
		w := answering(nil)
		got := run(t, 0, append([]string{"--address", serve(t, w)}, args...)...)
		require.Equal(t, admincli.ExitUsage, got.code, args)
		require.NotEmpty(t, got.err, args)
		require.Empty(t, w.asked, args)
	}
}

func TestErrorsSayWhatToDoNext(t *testing.T) {
	for name, c := range map[string]struct {
		worker *worker
		want   []string
	}{
		"unavailable": {refusing(codes.Unavailable, "the store is away"), []string{"the worker at 127.0.0.1:", "answers", "the store is away", "/readyz"}},
		"refused":     {refusing(codes.PermissionDenied, "runnel-gateway may not"), []string{"runnel-gateway may not", "own machine"}},
		"another":     {nil, []string{"does not support this command", "--address"}},
		"slow":        {refusing(codes.DeadlineExceeded, "too late"), []string{"no answer within 5s", "--timeout"}},
		"busy":        {refusing(codes.ResourceExhausted, "too many"), []string{"too many", "again"}},
		"not there":   {refusing(codes.NotFound, "there is no such connection\x1b[2J"), []string{"there is no such connection\\x1b[2J"}},
	} {
		got := run(t, 0, "--address", serve(t, c.worker), "connections", "inspect", "0192-a")
		require.Equal(t, admincli.ExitFailed, got.code, name)
		require.Empty(t, got.out, name)
		for _, want := range c.want {
			require.Contains(t, got.err, want, name)
		}
	}
}

func TestTheFirstAddressThatCanBeReachedIsAsked(t *testing.T) {
	first, second := answering(&adminv1.DropDeadLetterResponse{}), answering(&adminv1.DropDeadLetterResponse{})
	addresses := []string{"127.0.0.1:1", serve(t, first), serve(t, second)}
	for range 3 {
		got := run(t, 0, "--address", strings.Join(addresses, ","), "dead-letters", "drop", "x", "--yes")
		require.Equal(t, result{out: "dropped x\n"}, got)
	}
	require.Len(t, first.asked, 3)
	require.Empty(t, second.asked)

	got := run(t, 0, "--address", "127.0.0.1:1,127.0.0.1:2", "status")
	require.Equal(t, admincli.ExitFailed, got.code)
	require.Contains(t, got.err, "no server answers at 127.0.0.1:1 or 127.0.0.1:2")
}

func TestEveryCommandTeaches(t *testing.T) {
	for _, args := range []string{
		"", "status", "connections list", "connections inspect", "connections disconnect", "users sessions", "users revoke",
		"conversations list", "conversations show", "conversations members", "conversations verify", "partitions list", "partitions move",
		"dead-letters list", "dead-letters show", "dead-letters retry", "dead-letters drop", "explain", "level", "erase", "backup mark",
	} {
		got := run(t, 0, append(strings.Fields(args), "--help")...)
		require.Contains(t, got.out, "\n    runnel admin "+args, "an example")
	}
}

func TestAStandaloneIsFoundByDefault(t *testing.T) {
	var cli struct {
		Admin admincli.Command `cmd:""`
	}
	parser, err := settings.New("runnel", "", &cli)
	require.NoError(t, err)
	_, err = parser.Parse([]string{"admin", "status"})
	require.NoError(t, err)
	require.Equal(t, []string{"127.0.0.1:9001", admincli.DefaultStandalone}, cli.Admin.Address)
}
