package session

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/requests"
)

// send writes an encoded message, after the messages already queued.
func (s *Session) send(message []byte) {
	s.link.Queue(message)
	s.link.Flush()
}

// reply sends a frame.
func (s *Session) reply(f *clientv1.ServerFrame) { s.send(s.encode(f)) }

// encode encodes a frame as a message.
func (s *Session) encode(f *clientv1.ServerFrame) []byte {
	s.all.deps.Metrics.FramesOut.Inc()
	return s.listener.Answers.Frame(f)
}

// sendAnswer answers a request. Answers may contain events, so they use the encoding of events.
func (s *Session) sendAnswer(id uint64, answer requests.Answer) {
	s.all.deps.Metrics.FramesOut.Inc()
	encoding := s.listener.Events
	s.send(encoding.Message(func(dst []byte) []byte { return answer.Append(dst, encoding.Codec(), id) }))
}

// refuse answers a request with an error. A frame without an id gets no answer.
func (s *Session) refuse(id uint64, code conversationv1.ErrorCode, field, message string) {
	s.refuseWith(id, &conversationv1.Error{Code: code, Field: field, Message: message})
}

func (s *Session) refuseLimited(id uint64, message string) {
	s.refuseWith(id, requests.Limited(message))
}

func (s *Session) refuseWith(id uint64, refused *conversationv1.Error) {
	if id == 0 {
		s.all.deps.Metrics.Refused(refused.GetCode())
		return
	}
	s.sendError(id, refused)
}

func (s *Session) sendError(id uint64, refused *conversationv1.Error) {
	s.all.deps.Metrics.Refused(refused.GetCode())
	s.reply(&clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Error{Error: refused}})
}

// withinAckRate counts one acknowledgement or pong. After a network stall, many of them arrive at once from an honest
// client. Therefore the limit is high, and a client that exceeds it is asked to reconnect.
func (s *Session) withinAckRate() bool {
	if s.frames.Allow() {
		s.excess = 0
		return true
	}
	s.all.deps.Metrics.Limits[metrics.LimitFrameRate].Inc()
	if s.excess++; s.excess > maxExcess {
		s.link.Close(errcode.CloseOverloaded, "too many acknowledgements")
		return false
	}
	return true
}

// withinRate counts one frame, and closes a session that keeps exceeding the rate limit.
func (s *Session) withinRate() bool {
	if s.frames.Allow() {
		s.abuse = 0
		return true
	}
	s.all.deps.Metrics.Limits[metrics.LimitFrameRate].Inc()
	if s.abuse++; s.abuse > maxAbuse {
		s.link.Close(errcode.CloseFlood, "too many frames")
	}
	return false
}

// Accepted implements requests.Waiter.
func (s *Session) Accepted(id uint64) {
	if s.accepted {
		s.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Accepted{Accepted: &clientv1.Accepted{RequestId: id}}})
	}
}

// Outcome implements requests.Waiter. The outcome and its event are sent in one write.
func (s *Session) Outcome(id uint64, conversationID ids.Conversation, outcome *conversationv1.Outcome, traceparent string) {
	encoding := s.listener.Answers
	s.link.Queue(encoding.Message(func(dst []byte) []byte { return frame.AppendOutcome(dst, encoding.Codec(), id, outcome, traceparent) }))
	s.all.deps.Metrics.FramesOut.Inc()
	s.all.deps.Rooms.FlushWith(conversationID, ids.Seq(outcome.GetSeq()), s.link)
}
