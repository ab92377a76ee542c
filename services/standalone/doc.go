// Package standalone runs gateway, delivery and history in one process, with an embedded NATS server and SQLite under one
// data directory. It has no logic of its own: it puts the parts together as separate processes would be, the services
// still meeting only through their generated clients.
package standalone
