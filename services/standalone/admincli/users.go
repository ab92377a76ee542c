package admincli

import (
	"cmp"
	"context"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
)

type users struct {
	Sessions userSessions `cmd:"" help:"Show a user's connections and token revocation."`
	Revoke   revokeUser   `cmd:"" help:"Close all of a user's connections and refuse the tokens issued so far."`
}

type userSessions struct {
	User string `arg:"" help:"User id."`
}

func (*userSessions) Help() string {
	return `A device that is not in the list is not connected to any gateway.

  runnel admin users sessions bob`
}

// Run prints the sessions.
func (u *userSessions) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.GetUser(ctx, &adminv1.GetUserRequest{UserId: u.User})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) {
			p.row("user", person(u.User))
			p.row("tokens refused", refusedTokens(p, answer.GetRevokedBeforeMs()))
			p.gap()
			drawConnections(p, answer.GetConnections())
		}); err != nil {
			return err
		}
		return complete(answer.GetMissing())
	})
}

func refusedTokens(p *page, beforeMS int64) string {
	if beforeMS == 0 {
		return "none"
	}
	return "those issued at or before " + p.moment(beforeMS)
}

type revokeUser struct {
	User string `arg:"" help:"User id."`
}

func (*revokeUser) Help() string {
	return `For a stolen phone or a leaked token: every connection of the user is closed on every gateway, and the tokens issued up to now
are refused from now on. The user can connect again with a token issued later; first make sure that the thief
can no longer obtain tokens.

  runnel admin users revoke bob`
}

// Run revokes tokens.
func (u *revokeUser) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.RevokeUser(ctx, &adminv1.RevokeUserRequest{UserId: u.User})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) {
			p.linef("closed %s; tokens issued at or before %s are refused", plural(answer.GetClosed(), "connection"), cmp.Or(p.moment(answer.GetBeforeMs()), "-"))
		}); err != nil {
			return err
		}
		if len(answer.GetMissing()) > 0 {
			s.notef("Gateways that did not answer read the revocation from the store within seconds.")
		}
		return complete(answer.GetMissing())
	})
}
