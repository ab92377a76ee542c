// Package fleet lets one instance ask all instances of a service the same question, over NATS: which of the gateways has
// this connection, what does each remember of that event. Nobody needs a list of addresses for it, and gateways need not be
// reachable for anything but clients.
//
// What can be asked is a gRPC service: the same handler answers over gRPC and here.
//
//	f := fleet.New(fleet.Config{NATS: nc, Service: "gateway", Instance: id, Log: log})
//	gatewayv1.RegisterGatewayServiceServer(f, server)
//	go f.Run(ctx)
//
//	answers := fleet.AskAll[gatewayv1.ExplainResponse](ctx, f, "gateway", "Explain", request)
//
// Subjects:
//
//	ops.alive                               brokerv1.Alive: who is there, every few seconds
//	ops.who                                 everybody says at once that they are there
//	ops.all.<service>.<method>              a question to all instances of a service
//	ops.one.<instance>.<service>.<method>   a question to one
//	ops.answer.<random>                     answers to one question
//
// Who may ask is decided by the permissions on ops.all and ops.one, who may answer by those on ops.answer, see deploy/nats.
// Answers do not go to inboxes: to let gateways publish there would let them answer for anybody. A question may be lost; the
// answer then says who is missing. It is for operators: nothing on the way of a message uses it.
package fleet
