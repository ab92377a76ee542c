// Package errcode is the catalogue of all errors that clients can receive: error codes in frames and close codes of
// connections. For each code it has the name and the client's reaction. It contains only data.
package errcode

import (
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Code describes one error code.
type Code struct {
	Code conversationv1.ErrorCode
	// Name is the name in logs, metrics and documentation.
	Name string
	// Temporary means that the same request may succeed later without changes.
	Temporary bool
	// Meaning describes the cause and the client's reaction, for documentation.
	Meaning string
	// Why describes why the refusal is final or temporary, and what the client does, for documentation.
	Why string
}

// Final reports whether the same request would be refused again.
func (c Code) Final() bool { return !c.Temporary }

// Codes is every error code by rising number.
var Codes = []Code{
	{conversationv1.ErrorCode_ERROR_CODE_INVALID, "invalid", false, "A field breaks its rule. Correct the request; the error's field names it.", "The same request would break the same rule again; the client reports the error to the program."},
	{conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, "not_found", false, "The conversation does not exist, or the user is not a member of it.", "Only another request, such as joining the conversation, can change it; the client reports the error to the program."},
	{conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "forbidden", false, "The user is a member, but not allowed to do this.", "Only a change of the user's role can change it; the client reports the error to the program."},
	{conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "already_exists", false, "What was to be created exists. Use it.", "What exists stays; the client reports the error to the program."},
	{conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, "idempotency_conflict", false, "The command id was used with another body. Choose a new id for a new command.", "The id is taken for as long as the conversation lives; the client reports the error to the program."},
	{conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "conflict", false, "The state of the conversation does not allow it. Read the newest events.", "The command was judged at its place in the log, and that place does not change; the client reports the error to the program."},
	{conversationv1.ErrorCode_ERROR_CODE_LIMIT, "limit", false, "A limit of the conversation is reached.", "Only another request, such as removing a member, can make room; the client reports the error to the program. As the answer to connect it is passing: the close code decides."},
	{conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, "rate_limited", true, "Too many requests. Wait for the error's retry_after_ms.", "The rate falls by itself; the client waits for retry_after_ms and sends the request again."},
	{conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "unavailable", true, "A part behind the gateway is unavailable and the outcome is unknown. Send the same command again, with the same id and attempt.", "The part comes back; the client sends the request again, a command with the same id and attempt."},
	{conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED, "unauthenticated", false, "The token is missing, forged, expired or for another service. Get a new one.", "A token that was refused is not accepted later; the program must get another one. As the answer to connect the close code decides: after 4006 the client asks the program for a newer token and reconnects."},
	{conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, "dead_lettered", false, "The command failed repeatedly and was set aside for an operator.", "Only an operator can have the command carried out; the client reports the error to the program."},
	{conversationv1.ErrorCode_ERROR_CODE_INTERNAL, "internal", true, "A defect of the server. Try again later.", "The defect may be one of this instance or of this moment; the client sends the request again."},
	{conversationv1.ErrorCode_ERROR_CODE_PROTOCOL, "protocol", false, "The frame does not fit the state of the connection. This is a defect of the client.", "The client would send the same frame again; it reports the error to the program."},
}

// Name returns the name of an error code; "unknown" for a code that this version does not know.
func Name(code conversationv1.ErrorCode) string {
	for _, c := range Codes {
		if c.Code == code {
			return c.Name
		}
	}
	return "unknown"
}

// Temporary reports whether the same request may succeed later. An unknown code comes from a newer server and counts as
// temporary: giving up could lose a command, waiting cannot.
func Temporary(code conversationv1.ErrorCode) bool {
	for _, c := range Codes {
		if c.Code == code {
			return c.Temporary
		}
	}
	return true
}

// CloseCode is a WebSocket close code. For an unknown code, its range decides the client's reaction: after 4000 to 4499
// the client reconnects, after 4500 to 4999 it does not.
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

	CloseConnectTimeout CloseCode = 4009
	CloseAhead          CloseCode = 4010

	CloseProtocol        CloseCode = 4500
	CloseUnauthenticated CloseCode = 4501
	CloseTooLarge        CloseCode = 4502
	CloseFlood           CloseCode = 4503
	CloseLateConnect     CloseCode = 4504 // no longer sent
	CloseStayAway        CloseCode = 4505
)

// Close describes one close code.
type Close struct {
	Code CloseCode
	// Name is the name in logs, metrics and documentation.
	Name string
	// Final means that the client must not reconnect by itself. The code's range determines it.
	Final bool
	// Meaning describes why the connection was closed, for documentation.
	Meaning string
	// Why describes why the end is final or temporary, and what the client does, for documentation.
	Why string
}

// CloseCodes lists every close code by rising number.
var CloseCodes = []Close{
	{CloseGoingAway, "going_away", false, "The gateway is being stopped.", "Other gateways serve the client; it reconnects after the delay of the go_away push, and resumes."},
	{CloseSlow, "slow", false, "The client did not read fast enough. Nothing is lost: resume.", "The client may read faster next time; it reconnects and resumes where it was."},
	{CloseNoAck, "no_ack", false, "Events stayed unacknowledged after the last try.", "The link may have been broken in one direction; the client reconnects and gets the events again."},
	{CloseNoPong, "no_pong", false, "Heartbeats stayed unanswered.", "The link was probably broken; the client reconnects and resumes."},
	{CloseDisconnected, "disconnected", false, "An operator closed the connection.", "The operator did not ask it to stay away; the client reconnects and resumes."},
	{CloseOverloaded, "overloaded", false, "The gateway or the user has too many connections.", "Other connections end; the client reconnects with a growing delay."},
	{CloseTokenExpired, "token_expired", false, "The token has expired. Reconnect with a new one.", "A newer token is accepted; the client asks the program for one and reconnects."},
	{CloseInternal, "internal", false, "A defect of the server.", "The defect may be one of this instance or of this moment; the client reconnects."},
	{CloseUnavailable, "unavailable", false, "A part behind the gateway is unavailable.", "The part comes back; the client reconnects with a growing delay."},
	{CloseConnectTimeout, "connect_timeout", false, "No connect frame came in time.", "The network or the device may have been slow; the client reconnects."},
	{CloseAhead, "ahead", false, "The client kept acknowledging events that this gateway does not know of.", "The gateway may lag behind the one before, or the log went back; the client reconnects, and the resume tells it which events exist."},
	{CloseProtocol, "protocol", true, "The client sent a frame that no correct client sends.", "The client would send the same again; it stays away and reports the error to the program."},
	{CloseUnauthenticated, "unauthenticated", true, "The token is missing, forged or for another service.", "The same token would be refused again; the client stays away and reports the error, and the program signs in again."},
	{CloseTooLarge, "too_large", true, "A frame is above the size limit.", "The client would send the same again; it stays away and reports the error to the program."},
	{CloseFlood, "flood", true, "The client kept exceeding the rate limit.", "A client that ignores refusals would go on; it stays away and reports the error to the program."},
	{CloseLateConnect, "late_connect", true, "No connect frame came in time. No longer sent: gateways close with 4009 instead.", "Clients stay away after every code of this range; a slow start is no reason for that, so the code was replaced."},
	{CloseStayAway, "stay_away", true, "An operator closed the connection and asked the client to stay away.", "The operator decided so; the client stays away and reports the error to the program."},
}

const (
	// FirstFinal is the first code of the range after which a client does not reconnect, even if it does not know the
	// code.
	FirstFinal CloseCode = 4500
	// LastFinal is the last code of the range that begins with FirstFinal.
	LastFinal CloseCode = 4999
)

// Reconnect reports whether a client whose connection was closed with this code should reconnect by itself. Codes outside
// 4500 to 4999, including WebSocket's own codes, mean that the connection was lost, so the client reconnects.
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
