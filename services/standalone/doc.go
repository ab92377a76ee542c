// Package standalone runs gateway, delivery and history in one process, with an embedded NATS server and SQLite in one data
// directory. It has no logic of its own: the services call each other only through their generated clients, as they do in
// separate processes.
package standalone
