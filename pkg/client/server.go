package client

import (
	"time"

	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/request"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// server sends the inbox's queries to the server as requests.
type server struct {
	requests *request.Queue
	limits   func() *clientv1.Limits
}

func (s server) ReadPage(page inbox.PageRead) {
	read := &clientv1.Read{ConversationId: page.ConversationID, Limit: page.Limit}
	s.requests.AskAfter(&request.Request{
		Frame:   &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: read}},
		Prepare: func() { read.After = page.After() },
		Done: func(answer *clientv1.ServerFrame, err error) {
			if err == nil && answer.GetPage() == nil {
				err = errAnswer
			}
			page.Done(answer.GetPage(), err)
		},
	}, page.Wait)
}

func (s server) List(after string, wait time.Duration, done func(list *clientv1.Conversations, err error)) {
	list := &clientv1.ListConversations{After: after}
	s.requests.AskAfter(&request.Request{
		Frame:         &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListConversations{ListConversations: list}},
		Prepare:       func() { list.Limit = s.limits().GetMaxPage() },
		OneConnection: true,
		Done: func(answer *clientv1.ServerFrame, err error) {
			if err == nil && answer.GetConversations() == nil {
				err = errAnswer
			}
			done(answer.GetConversations(), err)
		},
	}, wait)
}
