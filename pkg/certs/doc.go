// Package certs loads certificates, keys and authorities from files, and loads them again when the files change. To
// replace a certificate, replace its files; no restart is needed and no connection is lost.
//
// It checks for changes at most once per second, when a connection is made and when metrics are read. There is no watcher
// to start or stop. If a new file cannot be used (half written, expired, not valid yet, not matching the key), this is
// logged, and the previous content stays in use. Existing connections keep their certificates.
//
// It makes no certificates. The packages devca and certstest below it do, for development and for tests. Package rpc
// decides about permissions.
package certs
