// Package rpc is how services of Runnel call each other: a gRPC server and client set up alike everywhere, and Inproc, which
// makes the same calls without a socket when the services share a process.
//
//	server.go     Server: listens, serves, stops
//	client.go     Dial
//	policy.go     Policy: which role may call which method; each service registers its own
//	guard.go      applies the policy to each call
//	transport.go  mutual TLS with certificates that may change
//	breaker.go    what a caller does about a dependency that fails or hangs
//	circuit.go    whether a method is called
//	bulkhead.go   bounds on calls in flight, of a caller and of a server
//	observer.go   metrics, and errors that callers may see
//	inproc.go     Inproc
//
// A service registers its implementation with a grpc.ServiceRegistrar and calls others through the generated clients over a
// grpc.ClientConnInterface; whether these are a Server and the connection of Dial, or one Inproc, is decided where the
// process is put together. Both ways give the same errors, the same metrics and the same traces.
//
// With certificates (package certs) both sides authenticate, and a method answers only the roles in its policy. Without, a
// server listens on loopback addresses, and on others only when it is configured to. The package knows no service, and does not
// authorise users.
package rpc

// MaxMessageBytes is the largest message either way. A page of history and a batch of commands stay well below.
const MaxMessageBytes = 8 << 20

// MaxItems is the most items that a request to a service may name, and the most of a page that may be asked for, where the
// schema says nothing else. Callers that have more ask several times.
const MaxItems = 1000
