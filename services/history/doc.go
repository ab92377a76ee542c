// Package history is the history service: the gRPC server in front of the store. It says what is wrong with a request,
// measures, and turns the store's errors into gRPC codes; that is all it does.
//
// It knows neither NATS nor connections, and it decides nothing about conversations: what comes to Append has been
// ordered and permitted by delivery. Neighbours: package store holds the interface of the database and its two
// implementations.
//
//	server.go     the methods that gateways and delivery call all the time
//	operators.go  the methods for operators, and revocations
//	validate.go   what a request must look like
//	errors.go     errors to gRPC codes, once
//	metrics.go    what is measured
//	config.go     which database
package history
