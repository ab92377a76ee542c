package frame

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// AppendClient appends a client's frame with its framing to dst.
func AppendClient(dst []byte, codec Codec, frame *clientv1.ClientFrame) []byte {
	if codec == JSON {
		return appendClientJSON(dst, frame)
	}
	return appendProto(dst, frame)
}

// AppendServer appends a server's frame with its framing to dst. Text that is not UTF-8 is a defect of the server and is
// made valid in JSON.
func AppendServer(dst []byte, codec Codec, frame *clientv1.ServerFrame) []byte {
	if codec == JSON {
		return appendServerJSON(dst, frame)
	}
	return appendProto(dst, frame)
}

// AppendEvent is AppendServer for the push of an event, with the trace of the command behind it; empty for none.
func AppendEvent(dst []byte, codec Codec, event *conversationv1.Event, traceparent string) []byte {
	if codec == JSON {
		dst = append(dst, `{"event":`...)
		dst = appendTextField(appendEventJSON(dst, event), "traceparent", traceparent)
		return append(dst, '}', '\n')
	}
	return appendProtoField(dst, 0, 9, event, traceparent)
}

// AppendOutcome is AppendServer for the answer to a submit with that id, with the trace of the command; empty for none.
func AppendOutcome(dst []byte, codec Codec, id uint64, outcome *conversationv1.Outcome, traceparent string) []byte {
	if codec == JSON {
		dst = appendUintField(append(dst, '{'), "id", id)
		dst = appendTextField(appendOutcomeJSON(appendKey(dst, "outcome"), outcome), "traceparent", traceparent)
		return append(dst, '}', '\n')
	}
	return appendProtoField(dst, id, 5, outcome, traceparent)
}

// AppendReceipt is AppendServer for the push of a receipt.
func AppendReceipt(dst []byte, codec Codec, receipt *conversationv1.Receipt) []byte {
	if codec == JSON {
		dst = append(dst, `{"receipt":`...)
		return append(appendReceiptJSON(dst, receipt), '}', '\n')
	}
	return appendProtoField(dst, 0, 10, receipt, "")
}
