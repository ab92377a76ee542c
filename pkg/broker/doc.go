// Package broker is how Runnel's parts use NATS: the names of subjects and streams, the settings that the streams must
// have, connecting, and the Submitter, which takes a command to its partition's stream and brings back the outcome.
//
// It keeps no messages of its own and decides nothing about conversations. What JetStream acknowledges is only
// "accepted": it may be lost when machines lose power. What is promised to users rests on the history store.
//
//	in.<p>               commands of partition p; the one subject of stream IN_<p>
//	result.<inbox>       outcomes, to the gateway or service that submitted the command   (core NATS)
//	live.<conversation>  committed events and receipts of one conversation                (core NATS)
//	joined               users who became members, to every gateway                       (core NATS)
//	revoked              users whose tokens became worthless, to every gateway            (core NATS)
//	ack.<p>              cursors that members moved, to the owner of partition p          (core NATS)
//	lease.released       a worker gave partitions back; others claim at once              (core NATS)
package broker
