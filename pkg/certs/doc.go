// Package certs loads certificates, keys and authorities from files, and again when the files change: a certificate is
// replaced by replacing its files, without a restart and without a connection lost.
//
// It notices a change when it is needed, at most once a second: when a connection is made, and when metrics are read. There
// is no watcher to start or stop. A new file that cannot be used (half written, expired, not good yet, not the key's) is
// logged, and what was in force stays in force. Connections that exist keep what they were made with.
//
// It makes no certificates; packages devca and certstest below do, for development and for tests. Who may do what is not
// decided here but in package rpc.
package certs
