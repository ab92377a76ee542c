package admincli

import (
	"cmp"

	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// printOutcome prints the outcome of a command. repeated and done are format strings for the seq and the conversation. A
// refusal is an error.
func (s *session) printOutcome(answer proto.Message, outcome *conversationv1.Outcome, repeated, done string) error {
	if err := s.print(answer, func(p *page) {
		switch {
		case outcome.GetError() != nil:
		case outcome.GetRepeated():
			p.linef(repeated, outcome.GetSeq(), outcome.GetConversationId())
		default:
			p.linef(done, outcome.GetSeq(), outcome.GetConversationId())
		}
	}); err != nil {
		return err
	}
	if refusal := outcome.GetError(); refusal != nil {
		return failed("refused: %s: %s", errcode.Name(refusal.GetCode()), clean(cmp.Or(refusal.GetMessage(), "no reason was given")))
	}
	return nil
}
