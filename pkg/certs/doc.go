// Package certs loads certificates, keys and authorities from files, and again when the files change: a certificate is
// replaced by replacing its files, without a restart and without a connection lost.
//
// It checks for changes on demand, at most once per second: when a connection is made, and when metrics are read. There
// is no watcher to start or stop. A new file that cannot be used (half written, expired, not valid yet, not matching the
// key) is logged, and the previous content stays in force. Existing connections keep their certificates.
//
// It makes no certificates; packages devca and certstest below do, for development and for tests. Permissions are decided
// in package rpc.
package certs
