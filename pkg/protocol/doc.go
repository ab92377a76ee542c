// Package protocol contains the numbers that clients and servers agree on: the limits of the client protocol, version 1.
// Each number is stated only here. limits.go has the constants. table.go lists them with their unit, the part that checks
// them and the answer to the client.
//
// It contains no logic and no settings. Bounds that no client can notice belong to the part that needs them. Error codes
// and close codes are in package errcode, kinds of commands in package conversation. README.md and protocol.json beside
// this file are generated from all three packages by `make generate`.
package protocol
