// Package rpc is how services of Runnel call each other: a gRPC server and client set up alike everywhere, and Inproc, which
// makes the same calls without a socket when the services share a process.
//
// A service registers its implementation with a grpc.ServiceRegistrar and calls others through the generated clients over a
// grpc.ClientConnInterface; whether these are a Server and the connection of Dial, or one Inproc, is decided where the
// process is put together. Both ways give the same errors, the same metrics and the same traces.
//
// The package knows no service and no method. It neither authenticates nor encrypts: the network between the services is
// trusted for now, and the default address is the machine's own.
package rpc

// MaxMessageBytes is the largest message either way. A page of history and a batch of commands stay well below.
const MaxMessageBytes = 8 << 20
