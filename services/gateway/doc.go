// Package gateway terminates client connections. It authenticates clients, checks the shape, size and rate of their frames,
// passes commands to the broker, and pushes the events of their conversations to them in order.
//
// It never writes to the store and never decides the order or the permission of a command. All its state can be lost: a client
// that loses its gateway resumes by seq on another.
//
// This package wires the parts together. Each part is a package below, and depends only on those listed under it:
//
//	operator   answers operators: gRPC, JSON, metrics
//	session    a device's authenticated presence: connects, resumes, sends heartbeats, forwards acknowledgements
//	requests   what users ask for: caller and request in, answer or typed error out
//	room       fans events out, fills gaps, resumes, finds forks
//	stretch    decides what a client still has to be told of the memberships of its user; pure
//	signal     live data that is never stored; still empty
//	link       a transport: link/websocket, link/memory; the queue of each is link/outbox, their conformance suite link/linktest
//	admission  which connections are accepted
//	flight     records of what happened to an event: recorder, traces, closed connections
//	page, wire, metrics, backoff   checking pages of history, encodings of transports, counters, waiting
//	gatewaytest                    shared by tests: a history service with one conversation
//
// Package room explains how an event reaches a client; package session explains how a frame is handled. A new transport is a
// package next to link/websocket (see link/README.md); a new request is a file in requests (see requests/README.md).
//
// Locks that nest are taken in this order: room.Hub.mu, room.Room.mu, session.Session.mu, then the lock of the link's queue
// (link/outbox). A room calls its subscribers, which are sessions, with its lock held; a session never calls a room with its own
// lock held. session.Sessions.mu and session.Acks.mu are held together with no other lock. With Hub.mu held, NATS is subscribed
// to, which may wait for the socket: broker.Connect bounds that to two seconds.
//
// Commands are admitted up to the installation's protocol level (installation.go).
package gateway
