package frame

import (
	"strings"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// traceparentBytes is the length of a W3C trace context of version 00: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>.
const traceparentBytes = 55

// checkTraceparent refuses a submit whose traceparent is neither empty nor exactly valid. A valid traceparent is safe in
// headers, logs and exporters.
func checkTraceparent(frame *clientv1.ClientFrame) *Error {
	if text := frame.GetSubmit().GetTraceparent(); text != "" && !validTraceparent(text) {
		return &Error{
			ID: frame.GetId(), Field: "submit.traceparent",
			Message: "must be a W3C trace context: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case, ids other than 0",
		}
	}
	return nil
}

func validTraceparent(text string) bool {
	if len(text) != traceparentBytes || text[:3] != "00-" || text[35] != '-' || text[52] != '-' {
		return false
	}
	traceID, spanID := text[3:35], text[36:52]
	return hexDigits(traceID) && hexDigits(spanID) && hexDigits(text[53:]) &&
		strings.Trim(traceID, "0") != "" && strings.Trim(spanID, "0") != ""
}

func hexDigits(text string) bool {
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
