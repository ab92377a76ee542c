package admincli

import (
	"cmp"
	"context"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
)

type level struct {
	Raise uint32 `help:"Raise the level to this one. It never falls again." placeholder:"LEVEL" range:"0..1000"`
}

func (*level) Help() string {
	return `The level determines which kinds of commands and events are in use. After an upgrade, raise it once every gateway and worker runs
the new version. Until then the upgrade can be rolled back; afterwards it cannot, because older versions no longer start.

  runnel admin level
  runnel admin level --raise 2`
}

// Run shows the level, or raises it.
func (l *level) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		if l.Raise != 0 {
			answer, err := s.admin.RaiseLevel(ctx, &adminv1.RaiseLevelRequest{Level: l.Raise})
			if err != nil {
				return err
			}
			return s.print(answer, func(p *page) { p.linef("the level is %d", answer.GetLevel()) })
		}
		answer, err := s.admin.GetLevel(ctx, &adminv1.GetLevelRequest{})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) {
			p.linef("the level is %d", answer.GetLevel())
			p.gap()
			drawLevels(p, answer.GetParts())
		}); err != nil {
			return err
		}
		return complete(answer.GetMissing())
	})
}

func drawLevels(p *page, parts []*adminv1.PartLevel) {
	if len(parts) == 0 {
		p.linef("no live gateways or workers")
		return
	}
	p.row("SERVICE", "INSTANCE", "KNOWS LEVEL", "VERSION")
	for _, part := range parts {
		p.row(part.GetService(), part.GetInstance(), number(part.GetLevel()), cmp.Or(part.GetVersion(), "not reported"))
	}
}
