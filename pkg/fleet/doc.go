// Package fleet sends the same query to all instances of a service, over NATS: for example, which gateway has a connection,
// or what each gateway has recorded about an event. It needs no list of addresses, and gateways need to be reachable only for
// clients.
//
// The queries are the methods of a gRPC service: the same handler answers over gRPC and over NATS.
//
//	f := fleet.New(fleet.Config{NATS: nc, Service: "gateway", Instance: id, Log: log})
//	gatewayv1.RegisterGatewayServiceServer(f, server)
//	go f.Run(ctx)
//
//	answers := fleet.AskAll[gatewayv1.ExplainResponse](ctx, f, "gateway", "Explain", request)
//
// Subjects:
//
//	ops.alive                               brokerv1.Alive: an instance's sign of life, every few seconds
//	ops.who                                 asks all instances for a sign of life at once
//	ops.all.<service>.<method>              a query to all instances of a service
//	ops.one.<instance>.<service>.<method>   a query to one instance
//	ops.answer.<random>                     answers to one query
//
// NATS permissions on ops.all and ops.one decide which services may query; permissions on ops.answer decide which may answer; see
// deploy/nats. Answers do not go to inboxes: a gateway with permission to publish to inboxes could forge answers of others. A query
// may be lost; the result then lists the missing instances. The package is for operators: the path of messages does not use
// it.
package fleet
