// Package rpc connects the services of Runnel: a gRPC server and client with the same setup
// everywhere, and Inproc, which makes the same calls without a socket if the services share a process.
//
//	server.go     Server: listens, serves, stops
//	client.go     Dial
//	policy.go     Policy: which role may call which method; each service registers its own
//	guard.go      applies the policy to each call
//	transport.go  mutual TLS with certificates that may change
//	breaker.go    a caller's protection from a dependency that fails or hangs
//	circuit.go    decides whether a method is called
//	bulkhead.go   limits the calls in flight of a caller and of a server
//	observer.go   metrics, and errors that callers may see
//	inproc.go     Inproc
//
// A service registers its implementation with a grpc.ServiceRegistrar and calls others through the generated clients over a
// grpc.ClientConnInterface. The program decides whether to use a Server and a connection of Dial, or one Inproc. Both ways
// produce the same errors, the same metrics and the same traces.
//
// With certificates (package certs) both sides authenticate, and a method can be called only by the roles in its policy. Without
// certificates, a server listens only on loopback addresses, unless it is configured otherwise. The package knows no service, and
// does not authorise users.
package rpc

// MaxMessageBytes is the maximum size of a request or a response. A page of history and a batch of commands stay well
// below it.
const MaxMessageBytes = 8 << 20

// MaxItems is the maximum number of items in a request, and of items of a page that may be requested, unless the schema
// sets another limit. Callers with more items make several requests.
const MaxItems = 1000
