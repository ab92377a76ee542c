// Package gateway terminates client connections. It authenticates clients, checks the shape, size and rate of their frames,
// passes commands to the broker, and pushes the events of their conversations to them in order.
//
// It never writes to the store and never decides the order or the permission of a command. All its state can be lost: a client
// that loses its gateway resumes by seq on another gateway.
//
// This package wires the parts together. Each part is a package, and depends only on packages listed below it:
//
//	operator   answers operators: gRPC, JSON, metrics
//	session    a device's authenticated presence: connects, resumes, sends heartbeats, forwards acknowledgements
//	requests   carries out the requests of users: returns an answer or a typed error
//	room       fans events out, fills gaps, resumes, finds forks
//	stretch    decides which parts of its user's memberships a client has yet to receive; pure
//	signal     live data that is never stored; has no code yet
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
// (link/outbox). A room calls its subscribers, which are sessions, with the room's lock held; a session never calls a room with its own
// lock held. session.Sessions.mu and session.Acks.mu are held together with no other lock. The Hub subscribes to NATS while it
// holds Hub.mu. Subscribing may wait for the socket; broker.Connect limits this wait to two seconds.
//
// Commands are admitted up to the installation's protocol level (installation.go).
package gateway
