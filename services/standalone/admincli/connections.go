package admincli

import (
	"cmp"
	"context"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
)

type connections struct {
	List       listConnections   `cmd:"" help:"List connections on all gateways."`
	Inspect    inspectConnection `cmd:"" help:"Show one connection and its position in each conversation."`
	Disconnect disconnect        `cmd:"" help:"Close one connection, or all of a user."`
}

type listConnections struct {
	User    string `help:"Only this user's." placeholder:"USER"`
	Gateway string `name:"on" aliases:"gateway" help:"Only this gateway's; --gateway is the same." placeholder:"NAME"`
	Limit   uint32 `help:"Most connections listed per gateway, up to 1000." default:"100" range:"1..100000"`
}

func (*listConnections) Help() string {
	return `QUEUED is the number of bytes waiting to be written: if it grows, the client is slow.

  runnel admin connections list --user bob`
}

// Run lists connections.
func (l *listConnections) Run(ctx context.Context, c *Command, console *Console) error {
	if l.Limit < 1 || l.Limit > maxPage {
		return usage("--limit must be from 1 to %d", maxPage)
	}
	return c.run(console, func(s *session) error {
		answer, err := s.admin.ListConnections(ctx, &adminv1.ListConnectionsRequest{UserId: l.User, Gateway: l.Gateway, Limit: l.Limit})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) { drawConnections(p, answer.GetConnections()) }); err != nil {
			return err
		}
		for _, gateway := range answer.GetMore() {
			s.notef("There are more on %s: set --limit (up to %d), --user or --on.", clean(gateway), maxPage)
		}
		return complete(answer.GetMissing())
	})
}

func drawConnections(p *page, list []*adminv1.Connection) {
	if len(list) == 0 {
		p.linef("no connections")
		return
	}
	p.row("CONNECTION", "USER", "DEVICE", "GATEWAY", "REMOTE", "CLIENT", "PROTOCOL", "CONVERSATIONS", "QUEUED", "SINCE")
	for _, at := range list {
		conn := at.GetConnection()
		p.row(conn.GetConnectionId(), person(conn.GetUserId()), person(conn.GetDeviceId()), at.GetGateway(), conn.GetRemote(), conn.GetClient(), conn.GetProtocol(),
			number(conn.GetConversations()), size(conn.GetQueuedBytes()), p.moment(conn.GetSinceMs()))
	}
}

type inspectConnection struct {
	ID string `arg:"" help:"Id of the connection."`
}

func (*inspectConnection) Help() string {
	return `BEHIND counts events that the gateway has and has not sent to the connection; UNACKNOWLEDGED counts events that were sent and not acknowledged.

  runnel admin connections inspect 0192f3c0-5b1e-7c42-9a7e-000000000001`
}

// Run shows a connection.
func (i *inspectConnection) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.GetConnection(ctx, &adminv1.GetConnectionRequest{ConnectionId: i.ID})
		if err != nil {
			return err
		}
		return s.print(answer, func(p *page) {
			conn := answer.GetConnection().GetConnection()
			p.row("connection", conn.GetConnectionId())
			p.row("gateway", answer.GetConnection().GetGateway())
			p.row("user", person(conn.GetUserId()))
			if conn.GetName() != "" {
				p.row("name", conn.GetName())
			}
			p.row("device", person(conn.GetDeviceId()))
			p.row("remote", conn.GetRemote())
			p.row("client", conn.GetClient())
			p.row("protocol", conn.GetProtocol())
			p.row("since", p.moment(conn.GetSinceMs()))
			p.row("token expires", cmp.Or(p.moment(conn.GetTokenExpiresMs()), "never"))
			p.row("queued", size(conn.GetQueuedBytes()))
			p.row("conversations", number(conn.GetConversations()))
			p.gap()
			p.row("CONVERSATION", "HEAD", "SENT", "ACKNOWLEDGED", "BEHIND", "UNACKNOWLEDGED", "RETRIES")
			for _, at := range answer.GetStandings() {
				p.row(at.GetConversationId(), number(at.GetHead()), number(at.GetSent()), number(at.GetAcknowledged()),
					number(above(at.GetHead(), at.GetSent())), number(above(at.GetSent(), at.GetAcknowledged())), number(at.GetRetries()))
			}
			if more := int(conn.GetConversations()) - len(answer.GetStandings()); more > 0 {
				p.linef("and %d more", more)
			}
		})
	})
}

// above returns a - b; 0 if a is not above b.
func above(a, b uint64) uint64 { return max(a, b) - b }

// lacks returns how many events a member does not have. The member joined with the event joined and has received the
// events up to seen.
func lacks(head, seen, joined uint64) uint64 { return above(head, max(seen, above(joined, 1))) }

type disconnect struct {
	ID       string `arg:"" optional:"" help:"Id of the connection."`
	User     string `help:"Close all connections of this user." placeholder:"USER"`
	StayAway bool   `help:"Ask the client not to reconnect by itself."`
}

func (*disconnect) Help() string {
	return `Clients reconnect by themselves and resume, possibly on another gateway; with --stay-away they do not, until a user starts
them again. To keep a user out, revoke their tokens: runnel admin users revoke.

  runnel admin connections disconnect --user bob`
}

// Run closes connections.
func (d *disconnect) Run(ctx context.Context, c *Command, console *Console) error {
	if (d.ID == "") == (d.User == "") {
		return usage("name the id of a connection, or --user, and not both")
	}
	return c.run(console, func(s *session) error {
		answer, err := s.admin.Disconnect(ctx, &adminv1.DisconnectRequest{ConnectionId: d.ID, UserId: d.User, StayAway: d.StayAway})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) { p.linef("closed %s", plural(answer.GetClosed(), "connection")) }); err != nil {
			return err
		}
		if err := complete(answer.GetMissing()); err != nil {
			return err
		}
		if d.ID != "" && answer.GetClosed() == 0 {
			return failed("no gateway has a connection %s; see runnel admin connections list", clean(d.ID))
		}
		return nil
	})
}
