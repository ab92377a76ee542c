// Package errcode is the catalogue of everything a client can be refused with: error codes in frames and close codes of
// connections, each with its name and what a client does about it. It is data; it decides nothing.
package errcode

import (
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Code describes one error code.
type Code struct {
	Code conversationv1.ErrorCode
	// Name is what logs, metrics and documentation call it.
	Name string
	// Temporary says that the same request may succeed later without being changed.
	Temporary bool
}

// Codes is every error code by rising number.
var Codes = []Code{
	{conversationv1.ErrorCode_ERROR_CODE_INVALID, "invalid", false},
	{conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, "not_found", false},
	{conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "forbidden", false},
	{conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "already_exists", false},
	{conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, "idempotency_conflict", false},
	{conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "conflict", false},
	{conversationv1.ErrorCode_ERROR_CODE_LIMIT, "limit", false},
	{conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, "rate_limited", true},
	{conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "unavailable", true},
	{conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED, "unauthenticated", false},
	{conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, "dead_lettered", false},
	{conversationv1.ErrorCode_ERROR_CODE_INTERNAL, "internal", true},
	{conversationv1.ErrorCode_ERROR_CODE_PROTOCOL, "protocol", false},
}

// Name gives the name of an error code; "unknown" for one this version does not know.
func Name(code conversationv1.ErrorCode) string {
	for _, c := range Codes {
		if c.Code == code {
			return c.Name
		}
	}
	return "unknown"
}

// Temporary reports whether the same request may succeed later. An unknown code counts as temporary: it comes from a newer
// server, and giving up loses what waiting does not.
func Temporary(code conversationv1.ErrorCode) bool {
	for _, c := range Codes {
		if c.Code == code {
			return c.Temporary
		}
	}
	return true
}

// CloseCode is a WebSocket close code. Its range decides what a client does with one it does not know: 4000 to 4499
// reconnect, 4500 to 4999 do not.
type CloseCode int

// Close codes that a client answers by reconnecting.
const (
	CloseGoingAway    CloseCode = 4000 // the gateway is being stopped
	CloseSlow         CloseCode = 4001 // the client did not read fast enough; nothing is lost, resume
	CloseNoAck        CloseCode = 4002 // events stayed unacknowledged after the last try
	CloseNoPong       CloseCode = 4003 // heartbeats stayed unanswered
	CloseDisconnected CloseCode = 4004 // an operator closed it
	CloseOverloaded   CloseCode = 4005 // the gateway or the user has too many connections
	CloseTokenExpired CloseCode = 4006 // reconnect with a new token
	CloseInternal     CloseCode = 4007 // a defect of the server
	CloseUnavailable  CloseCode = 4008 // a part behind the gateway is away
)

// Close codes that a client does not answer by reconnecting: something has to change first.
const (
	CloseProtocol        CloseCode = 4500 // a frame that no correct client sends
	CloseUnauthenticated CloseCode = 4501 // the token is missing, forged or not meant for this service
	CloseTooLarge        CloseCode = 4502 // a frame above the limit
	CloseFlood           CloseCode = 4503 // the rate limit was ignored again and again
	CloseConnectTimeout  CloseCode = 4504 // no connect frame in time
	CloseStayAway        CloseCode = 4505 // an operator closed it and asked the client to stay away
)

// Reconnect reports whether a client that was closed with this code should connect again by itself. Codes outside 4500
// to 4999, those of WebSocket itself among them, mean the connection was lost: reconnect.
func (c CloseCode) Reconnect() bool { return c < 4500 || c > 4999 }

// String is the name used in logs and metrics.
func (c CloseCode) String() string {
	switch c {
	case CloseGoingAway:
		return "going_away"
	case CloseSlow:
		return "slow"
	case CloseNoAck:
		return "no_ack"
	case CloseNoPong:
		return "no_pong"
	case CloseDisconnected:
		return "disconnected"
	case CloseOverloaded:
		return "overloaded"
	case CloseTokenExpired:
		return "token_expired"
	case CloseInternal:
		return "internal"
	case CloseUnavailable:
		return "unavailable"
	case CloseProtocol:
		return "protocol"
	case CloseUnauthenticated:
		return "unauthenticated"
	case CloseTooLarge:
		return "too_large"
	case CloseFlood:
		return "flood"
	case CloseConnectTimeout:
		return "connect_timeout"
	case CloseStayAway:
		return "stay_away"
	default:
		return "other"
	}
}
