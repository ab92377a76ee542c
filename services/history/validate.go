package history

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// maxPayloadBytes is above the message limit of every stream.
	maxPayloadBytes = 1 << 20
	maxReasonBytes  = 1024
	maxWorkerBytes  = 128
	maxTTLMs        = 600_000
	maxStreamDigits = 20
	maxReaderBytes  = 64
	maxWaitMs       = 60_000
	// maxExtraBytes is above the size that the kinds with the most targets need.
	maxExtraBytes = 1 << 20
	maxFormat     = math.MaxInt16
	// maxNumber is the largest number that databases accept for a seq or sequence.
	maxNumber = math.MaxInt64
)

func (s *Server) checkAppend(request *historyv1.AppendRequest) error {
	if err := checkKnown(request); err != nil {
		return err
	}
	if err := s.checkPartition("partition", ids.Partition(request.GetPartition())); err != nil {
		return err
	}
	if err := checkWatermark("expected", request.GetExpected(), true); err != nil {
		return err
	}
	if err := checkWatermark("next", request.GetNext(), false); err != nil {
		return err
	}
	if err := checkCount("events", len(request.GetEvents())); err != nil {
		return err
	}
	for i, event := range request.GetEvents() {
		if field, rule := s.checkEvent(event, ids.Partition(request.GetPartition())); rule != "" {
			return store.Invalid(fmt.Sprintf("events[%d].%s", i, field), "%s", rule)
		}
	}
	if err := checkEffects(request); err != nil {
		return err
	}
	if err := s.checkRefusals(request); err != nil {
		return err
	}
	if err := checkCount("dead_letters", len(request.GetDeadLetters())); err != nil {
		return err
	}
	for i, letter := range request.GetDeadLetters() {
		if letter.GetSequence() == 0 || letter.GetSequence() > maxNumber {
			return store.Invalid(fmt.Sprintf("dead_letters[%d].sequence", i), "must be 1 to 2^63-1")
		}
		if len(letter.GetPayload()) > maxPayloadBytes {
			return store.Invalid(fmt.Sprintf("dead_letters[%d].payload", i), "must be at most %d bytes", maxPayloadBytes)
		}
	}
	return nil
}

// checkEvent returns the invalid field of an event, and the rule for it. It runs for every stored event, so it formats an
// error text only if there is an error. It does not check the content of a body: the worker checked it when it applied
// the command, and may be newer than this service.
func (s *Server) checkEvent(event *conversationv1.Event, partition ids.Partition) (field, rule string) {
	switch id := ids.Conversation(event.GetConversationId()); {
	case !conversation.ValidID(string(id)):
		return "conversation_id", "is not a conversation id"
	case conversation.Partition(id, s.store.Partitions()) != partition:
		return "conversation_id", "belongs to another partition"
	case event.GetSeq() == 0 || event.GetSeq() > maxNumber:
		return "seq", "must be 1 to 2^63-1"
	case event.GetTimeMs() < 0:
		return "time_ms", "must not be negative"
	case !conversation.ValidSender(event.GetSender()):
		return "sender", "is not a user id"
	case !conversation.ValidCommandID(event.GetCommandId()):
		return "command_id", "must be a UUID in canonical form"
	case event.GetFormat() < chain.Format || event.GetFormat() > maxFormat:
		return "format", "must be 2 or higher"
	case event.GetKind() <= conversationv1.EventKind_EVENT_KIND_UNSPECIFIED:
		return "kind", "must be set"
	case event.GetKind() > math.MaxInt16:
		return "kind", "must be at most 32767"
	case len(event.GetPrevHash()) != chain.Size:
		return "prev_hash", "must be 32 bytes"
	case len(event.GetHash()) != chain.Size:
		return "hash", "must be 32 bytes"
	case len(event.GetHeaderExtra()) > maxExtraBytes:
		return "header_extra", "must be at most 1 MiB"
	}
	return checkContent(event)
}

// checkContent checks body, salt and commitment. A commitment that is not stored is computed when the event is read, so
// it must now match salt and body.
func checkContent(event *conversationv1.Event) (field, rule string) {
	body, salt := event.GetBody(), event.GetSalt()
	switch {
	case len(event.GetCommitment()) != chain.Size:
		return "commitment", "must be 32 bytes"
	case len(body) == 0 && len(salt) != 0:
		return "salt", "must be empty without a body"
	case len(body) == 0:
		return "", ""
	case len(salt) < chain.MinSaltSize || len(salt) > chain.MaxSaltSize:
		return "salt", "must be 16 to 32 bytes"
	case event.GetKind() != conversation.KindOfBytes(body):
		return "kind", "must be that of the body"
	case event.GetFormat() != chain.Format:
		return "", ""
	}
	if commitment := chain.Commitment(salt, body); !bytes.Equal(commitment[:], event.GetCommitment()) {
		return "commitment", "must be that of salt and body"
	}
	return "", ""
}

// withCleanReasons returns the request with dead-letter reasons that every database accepts. Their text may come from any
// error, and must not make storing the dead letter fail. The request itself is shared with the caller, so it is not
// changed.
func withCleanReasons(request *historyv1.AppendRequest) *historyv1.AppendRequest {
	if len(request.GetDeadLetters()) == 0 {
		return request
	}
	clean := &historyv1.AppendRequest{
		Partition: request.GetPartition(), Expected: request.GetExpected(), Next: request.GetNext(), Events: request.GetEvents(),
		Sequences: request.GetSequences(), Effects: request.GetEffects(), Refusals: request.GetRefusals(), BeginEpoch: request.GetBeginEpoch(),
		DeadLetters: make([]*historyv1.DeadLetter, len(request.GetDeadLetters())),
	}
	for i, letter := range request.GetDeadLetters() {
		reason := strings.ReplaceAll(strings.ToValidUTF8(letter.GetReason(), "?"), "\x00", "?")
		for len(reason) > maxReasonBytes {
			_, last := utf8.DecodeLastRuneInString(reason)
			reason = reason[:max(len(reason)-last, 0)]
		}
		clean.DeadLetters[i] = &historyv1.DeadLetter{Sequence: letter.GetSequence(), Reason: reason, Payload: letter.GetPayload()}
	}
	return clean
}

func (s *Server) checkPartition(field string, partition ids.Partition) error {
	if int(partition) >= s.store.Partitions() {
		return store.Invalid(field, "must be below %d, the number of partitions", s.store.Partitions())
	}
	return nil
}

func checkWatermark(field string, watermark *historyv1.Watermark, mayBeNone bool) error {
	stream := watermark.GetStream()
	if stream == "" && watermark.GetSequence() == 0 && watermark.GetEpoch() == 0 && mayBeNone {
		return nil
	}
	if stream == "" || len(stream) > maxStreamDigits || strings.Trim(stream, "0123456789") != "" {
		return store.Invalid(field+".stream", "must be 1 to %d digits", maxStreamDigits)
	}
	if watermark.GetSequence() > maxNumber {
		return store.Invalid(field+".sequence", "must be at most 2^63-1")
	}
	if watermark.GetEpoch() > maxNumber {
		return store.Invalid(field+".epoch", "must be at most 2^63-1")
	}
	return nil
}

func checkCount(field string, n int) error {
	if n > rpc.MaxItems {
		return store.Invalid(field, "must be at most %d", rpc.MaxItems)
	}
	return nil
}

func checkLimit(limit uint32) error {
	if limit > store.MaxPage {
		return store.Invalid("limit", "must be at most %d", store.MaxPage)
	}
	return nil
}

func checkConversation(field, id string) error {
	if !conversation.ValidID(id) {
		return store.Invalid(field, "is not a conversation id")
	}
	return nil
}

func checkConversations(list []string) error {
	if err := checkCount("conversation_ids", len(list)); err != nil {
		return err
	}
	for i, id := range list {
		if !conversation.ValidID(id) {
			return store.Invalid(fmt.Sprintf("conversation_ids[%d]", i), "is not a conversation id")
		}
	}
	return nil
}

func checkUser(field, user string) error {
	if !conversation.ValidUser(user) {
		return store.Invalid(field, "is not a user id")
	}
	return nil
}

func checkOptionalUser(field, user string) error {
	if user == "" {
		return nil
	}
	return checkUser(field, user)
}

func checkWorker(worker string) error {
	visible := func(r rune) bool { return r > ' ' && r <= '~' }
	if worker == "" || len(worker) > maxWorkerBytes || strings.TrimFunc(worker, visible) != "" {
		return store.Invalid("worker", "must be 1 to %d visible ASCII characters", maxWorkerBytes)
	}
	return nil
}

func (s *Server) checkLease(request *historyv1.LeaseRequest) error {
	if err := checkWorker(request.GetWorker()); err != nil {
		return err
	}
	if ttl := request.GetTtlMs(); ttl == 0 || ttl > maxTTLMs {
		return store.Invalid("ttl_ms", "must be 1 to %d", maxTTLMs)
	}
	if len(request.GetRelease()) > s.store.Partitions() {
		return store.Invalid("release", "must be at most %d, the number of partitions", s.store.Partitions())
	}
	for i, partition := range request.GetRelease() {
		if err := s.checkPartition(fmt.Sprintf("release[%d]", i), ids.Partition(partition)); err != nil {
			return err
		}
	}
	return nil
}

func checkCommands(keys []*historyv1.CommandKey) error {
	if err := checkCount("commands", len(keys)); err != nil {
		return err
	}
	for i, key := range keys {
		if field, rule := checkKey(key); rule != "" {
			return store.Invalid(fmt.Sprintf("commands[%d].%s", i, field), "%s", rule)
		}
	}
	return nil
}

func checkKey(key *historyv1.CommandKey) (field, rule string) {
	switch {
	case !conversation.ValidID(key.GetConversationId()):
		return "conversation_id", "is not a conversation id"
	case !conversation.ValidSender(key.GetSender()):
		return "sender", "is not a user id"
	case !conversation.ValidCommandID(key.GetCommandId()):
		return "command_id", "must be a UUID in canonical form"
	}
	return "", ""
}

func checkRead(ctx context.Context, request *historyv1.ReadRequest) error {
	if err := checkViewer(ctx, request.GetViewer()); err != nil {
		return err
	}
	if err := checkStretch(ids.Conversation(request.GetConversationId()), ids.Seq(request.GetAfter()), ids.Seq(request.GetBefore())); err != nil {
		return err
	}
	return checkLimit(request.GetLimit())
}

// checkStretch checks the start of a page of a log.
func checkStretch(id ids.Conversation, after, before ids.Seq) error {
	if err := checkConversation("conversation_id", string(id)); err != nil {
		return err
	}
	if after >= maxNumber {
		return store.Invalid("after", "must be below 2^63-1")
	}
	if before > maxNumber {
		return store.Invalid("before", "must be at most 2^63-1")
	}
	return nil
}

func checkCursors(updates []*historyv1.CursorUpdate) error {
	if err := checkCount("updates", len(updates)); err != nil {
		return err
	}
	for i, update := range updates {
		cursor := update.GetCursor()
		field := func(name string) string { return fmt.Sprintf("updates[%d].%s", i, name) }
		switch {
		case !conversation.ValidID(update.GetConversationId()):
			return store.Invalid(field("conversation_id"), "is not a conversation id")
		case !conversation.ValidUser(cursor.GetUserId()):
			return store.Invalid(field("cursor.user_id"), "is not a user id")
		case cursor.GetDeliveredSeq() > maxNumber:
			return store.Invalid(field("cursor.delivered_seq"), "must be at most 2^63-1")
		case cursor.GetReadSeq() > maxNumber:
			return store.Invalid(field("cursor.read_seq"), "must be at most 2^63-1")
		case cursor.GetDeliveredTimeMs() < 0:
			return store.Invalid(field("cursor.delivered_time_ms"), "must not be negative")
		case cursor.GetReadTimeMs() < 0:
			return store.Invalid(field("cursor.read_time_ms"), "must not be negative")
		}
	}
	return nil
}
