// Package standalone runs gateway, delivery and history in one process, with an embedded NATS server and SQLite in one data
// directory. It contains only wiring: the services call each other only through their generated clients, as they do in
// separate processes.
package standalone
