package frame

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// AppendClient appends a client's frame with its framing to dst.
func AppendClient(dst []byte, codec Codec, frame *clientv1.ClientFrame) []byte {
	if codec.isJSON() {
		return append(appendClientFrameJSON(dst, frame), '\n')
	}
	return appendProto(dst, frame)
}

// AppendServer appends a server's frame with its framing to dst. Text that is not UTF-8 is a defect of the server; in
// JSON it becomes U+FFFD. Proto sends Event.BodyBytes as the body, JSONWithBytes sends them beside the body, JSON does
// not send them.
func AppendServer(dst []byte, codec Codec, frame *clientv1.ServerFrame) []byte {
	switch {
	case codec != JSONWithBytes && hasBodyBytes(frame):
		return appendStored(dst, codec, frame)
	case codec.isJSON():
		return appendServerJSON(dst, frame)
	default:
		return appendProto(dst, frame)
	}
}

// AppendEvent appends the frame that pushes a stored event. traceparent is the trace of its command; empty if there is
// none.
//
// Proto sends the body's bytes unchanged. JSON decodes the body: fields of the body that this version does not know are
// left out. All other fields of the event are sent.
func AppendEvent(dst []byte, codec Codec, event *conversationv1.Event, traceparent string) []byte {
	return appendEvent(dst, codec, 0, event, traceparent)
}

func appendEvent(dst []byte, codec Codec, id uint64, event *conversationv1.Event, traceparent string) []byte {
	if !codec.isJSON() {
		return appendProtoField(dst, id, eventField, event, traceparent)
	}
	var decoded clientv1.Event
	setEvent(&decoded, codec, event)
	return appendServerJSON(dst, &clientv1.ServerFrame{
		Id: id, Message: &clientv1.ServerFrame_Event{Event: &decoded}, Traceparent: traceparent,
	})
}

// Page is clientv1.Page with events in their stored form.
type Page struct {
	// Events are in the requested order.
	Events []*conversationv1.Event
	// Hidden are the stretches within the page that the user may not see.
	Hidden []*conversationv1.Range
	// Head is the newest seq that the user may see.
	Head uint64
	// More means that the log continues in this direction.
	More bool
}

// AppendPage appends the frame that answers the read request with this id. It treats bodies like AppendEvent.
func AppendPage(dst []byte, codec Codec, id uint64, page *Page) []byte {
	return appendPage(dst, codec, id, page, "")
}

func appendPage(dst []byte, codec Codec, id uint64, page *Page, traceparent string) []byte {
	if !codec.isJSON() {
		return appendProtoField(dst, id, pageField, &storedPage{
			events: page.Events, rest: &clientv1.Page{Hidden: page.Hidden, Head: page.Head, More: page.More},
		}, traceparent)
	}
	decoded := make([]clientv1.Event, len(page.Events))
	events := make([]*clientv1.Event, len(page.Events))
	for i, event := range page.Events {
		events[i] = &decoded[i]
		setEvent(events[i], codec, event)
	}
	return appendServerJSON(dst, &clientv1.ServerFrame{
		Id: id, Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{
			Events: events, Hidden: page.Hidden, Head: page.Head, More: page.More,
		}}, Traceparent: traceparent,
	})
}

// AppendOutcome appends the frame that answers the submit request with this id. traceparent is the trace of the command;
// empty if there is none.
func AppendOutcome(dst []byte, codec Codec, id uint64, outcome *conversationv1.Outcome, traceparent string) []byte {
	if !codec.isJSON() {
		return appendProtoField(dst, id, outcomeField, outcome, traceparent)
	}
	return appendServerJSON(dst, &clientv1.ServerFrame{
		Id: id, Message: &clientv1.ServerFrame_Outcome{Outcome: outcome}, Traceparent: traceparent,
	})
}

// AppendReceipt appends the frame that pushes a receipt.
func AppendReceipt(dst []byte, codec Codec, receipt *conversationv1.Receipt) []byte {
	if !codec.isJSON() {
		return appendProtoField(dst, 0, receiptField, receipt, "")
	}
	return appendServerJSON(dst, &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Receipt{Receipt: receipt}})
}

func appendServerJSON(dst []byte, frame *clientv1.ServerFrame) []byte {
	return append(appendServerFrameJSON(dst, frame), '\n')
}
