// Package protocol holds the numbers that clients and servers agree on: the limits of the client protocol, version 1. Each is
// stated here and nowhere else. limits.go has the constants, table.go lists them with their unit, who checks them and what the
// client is answered.
//
// It never holds logic or settings. Bounds that no client sees belong to the part that has them. Error codes and close codes
// are in package errcode, kinds of commands in package conversation; README.md and protocol.json beside this file are
// generated from all three by `make generate`.
package protocol
