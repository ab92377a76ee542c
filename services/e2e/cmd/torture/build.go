package main

import (
	"context"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/skew"
)

// services are the programs that a run needs.
var services = []string{launch.NATSServer, launch.History, launch.Delivery, launch.Gateway}

// mixed are the programs that also exist in the next version.
var mixed = []string{launch.History, launch.Delivery, launch.Gateway}

// programs are the programs of a run.
type programs struct {
	present launch.Binaries
	next    launch.Binaries // nil if versions are not mixed
	source  string          // source code of the next version
}

// build builds the programs that runs need, including the next version if versions are mixed. The source of the next
// version is made concurrently. Its programs are built last, because two concurrent builds need more memory than small
// machines have.
func (c *cli) build(ctx context.Context, dir string) (*programs, error) {
	p := &programs{source: filepath.Join(dir, "next", "source")}
	group, building := errgroup.WithContext(ctx)
	if c.MixVersions {
		group.Go(func() error { return skew.Next(building, p.source) })
	}
	group.Go(func() (err error) {
		p.present, err = c.binaries(building, filepath.Join(dir, "bin"), c.Tags)
		return err
	})
	if err := group.Wait(); err != nil || !c.MixVersions {
		return p, err
	}
	var err error
	p.next, err = p.buildNext(ctx, filepath.Join(dir, "next", "bin"), c.NextTags, mixed...)
	return p, err
}

// buildNext builds programs of the next version, with build tags separated by commas.
func (p *programs) buildNext(ctx context.Context, dir, tags string, names ...string) (launch.Binaries, error) {
	return skew.Build(ctx, p.source, dir, tags, names...)
}

func (c *cli) binaries(ctx context.Context, dir, tags string) (launch.Binaries, error) {
	if c.Bin == "" {
		return launch.Build(ctx, dir, tags, services...)
	}
	binaries := launch.Binaries{}
	for _, name := range services {
		binaries[name] = filepath.Join(c.Bin, name)
	}
	return binaries, nil
}
