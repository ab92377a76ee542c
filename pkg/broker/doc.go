// Package broker is the interface of Runnel's parts to NATS: the names of subjects and streams, the required settings of the streams,
// connecting, and the Submitter, which puts a command into its partition's stream and returns the outcome.
//
// It stores no messages and decides nothing about conversations. A JetStream acknowledgement means only "accepted": the message
// may be lost in a power failure. The guarantees to users rest on the history store.
//
//	in.<p>               commands of partition p, in stream IN_<p>
//	result.<inbox>       outcomes, to the gateway or service that submitted the command   (bus)
//	live.<conversation>  committed events and receipts of one conversation                (bus)
//	joined               users who became members, to every gateway                       (bus)
//	revoked              users whose tokens were revoked, to every gateway                (bus)
//	ack.<p>              cursors that members moved, to the owner of partition p          (bus)
//	lease.released       a worker released partitions; others claim them at once          (bus)
//
// (bus) is package bus: core NATS between processes, function calls within one process. Its messages may be lost.
package broker
