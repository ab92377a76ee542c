// Package errcode is the catalogue of all errors that clients can receive: error codes in frames and close codes of
// connections, each with its name and the client's reaction. It is data; it decides nothing.
package errcode

import (
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Code describes one error code.
type Code struct {
	Code conversationv1.ErrorCode
	// Name is the name in logs, metrics and documentation.
	Name string
	// Temporary means that the same request may succeed later without being changed.
	Temporary bool
	// Meaning is for documentation: the cause, and the client's reaction.
	Meaning string
}

// Codes lists every error code by rising number.
var Codes = []Code{
	{conversationv1.ErrorCode_ERROR_CODE_INVALID, "invalid", false, "A field breaks its rule. Correct the request; the error's field names it."},
	{conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, "not_found", false, "The conversation does not exist, or the user is not a member of it."},
	{conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "forbidden", false, "The user is a member, but not allowed to do this."},
	{conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "already_exists", false, "The object to be created already exists. Use it."},
	{conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, "idempotency_conflict", false, "The command id was used with another body. Choose a new id for a new command."},
	{conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "conflict", false, "The state of the conversation does not allow it. Read the newest events."},
	{conversationv1.ErrorCode_ERROR_CODE_LIMIT, "limit", false, "A limit of the conversation is reached."},
	{conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, "rate_limited", true, "Too many requests. Wait for the error's retry_after_ms."},
	{conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "unavailable", true, "A part behind the gateway is unavailable and the outcome is unknown. Send the same command again, with the same id and attempt."},
	{conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED, "unauthenticated", false, "The token is missing, forged, expired or for another service. Get a new one."},
	{conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, "dead_lettered", false, "The command failed repeatedly and was set aside for an operator."},
	{conversationv1.ErrorCode_ERROR_CODE_INTERNAL, "internal", true, "A defect of the server. Try again later."},
	{conversationv1.ErrorCode_ERROR_CODE_PROTOCOL, "protocol", false, "The frame does not fit the state of the connection. This is a defect of the client."},
}

// Name returns the name of an error code; "unknown" for one that this version does not know.
func Name(code conversationv1.ErrorCode) string {
	for _, c := range Codes {
		if c.Code == code {
			return c.Name
		}
	}
	return "unknown"
}

// Temporary reports whether the same request may succeed later. An unknown code counts as temporary: it comes from a newer
// server, and giving up could lose a command, while waiting does not.
func Temporary(code conversationv1.ErrorCode) bool {
	for _, c := range Codes {
		if c.Code == code {
			return c.Temporary
		}
	}
	return true
}

// CloseCode is a WebSocket close code. The range of an unknown code decides the client's reaction: 4000 to 4499 reconnect,
// 4500 to 4999 do not.
type CloseCode int

// Close codes. CloseCodes contains their meanings.
const (
	CloseGoingAway    CloseCode = 4000
	CloseSlow         CloseCode = 4001
	CloseNoAck        CloseCode = 4002
	CloseNoPong       CloseCode = 4003
	CloseDisconnected CloseCode = 4004
	CloseOverloaded   CloseCode = 4005
	CloseTokenExpired CloseCode = 4006
	CloseInternal     CloseCode = 4007
	CloseUnavailable  CloseCode = 4008

	CloseProtocol        CloseCode = 4500
	CloseUnauthenticated CloseCode = 4501
	CloseTooLarge        CloseCode = 4502
	CloseFlood           CloseCode = 4503
	CloseConnectTimeout  CloseCode = 4504
	CloseStayAway        CloseCode = 4505
)

// Close describes one close code.
type Close struct {
	Code CloseCode
	// Name is the name in logs, metrics and documentation.
	Name string
	// Meaning is for documentation: why the connection was closed.
	Meaning string
}

// CloseCodes lists every close code by rising number.
var CloseCodes = []Close{
	{CloseGoingAway, "going_away", "The gateway is being stopped."},
	{CloseSlow, "slow", "The client did not read fast enough. Nothing is lost: resume."},
	{CloseNoAck, "no_ack", "Events stayed unacknowledged after the last try."},
	{CloseNoPong, "no_pong", "Heartbeats stayed unanswered."},
	{CloseDisconnected, "disconnected", "An operator closed the connection."},
	{CloseOverloaded, "overloaded", "The gateway or the user has too many connections."},
	{CloseTokenExpired, "token_expired", "The token has expired. Reconnect with a new one."},
	{CloseInternal, "internal", "A defect of the server."},
	{CloseUnavailable, "unavailable", "A part behind the gateway is unavailable."},
	{CloseProtocol, "protocol", "The client sent a frame that no correct client sends."},
	{CloseUnauthenticated, "unauthenticated", "The token is missing, forged or for another service."},
	{CloseTooLarge, "too_large", "A frame is above the size limit."},
	{CloseFlood, "flood", "The client kept exceeding the rate limit."},
	{CloseConnectTimeout, "connect_timeout", "No connect frame came in time."},
	{CloseStayAway, "stay_away", "An operator closed the connection and asked the client to stay away."},
}

const (
	// FirstFinal is the first of the codes after which a client does not reconnect, known or not.
	FirstFinal CloseCode = 4500
	// LastFinal is the last of these codes.
	LastFinal CloseCode = 4999
)

// Reconnect reports whether a client that was closed with this code should reconnect by itself. Codes outside 4500 to 4999,
// including those of WebSocket itself, mean that the connection was lost: reconnect.
func (c CloseCode) Reconnect() bool { return c < FirstFinal || c > LastFinal }

// String returns the name used in logs and metrics; "other" for a code that this version does not know.
func (c CloseCode) String() string {
	for _, known := range CloseCodes {
		if known.Code == c {
			return known.Name
		}
	}
	return "other"
}
