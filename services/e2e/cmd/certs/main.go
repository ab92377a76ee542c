// Command certs makes certificates and nkeys for trying out a secured installation. Package devkeys lists the files
// that it writes. They are for development: only the permissions of the files protect them.
//
//	go run ./services/e2e/cmd/certs --dir keys --host localhost --host 127.0.0.1
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/e2e/devkeys"
)

type cli struct {
	Dir      string        `help:"Directory to write to; it must not exist, so that no files in use are replaced." required:"" type:"path"`
	Host     []string      `help:"Host names and addresses of NATS and the gateways." default:"localhost,127.0.0.1"`
	Lifetime time.Duration `help:"How long certificates are valid." default:"720h"`
}

func main() {
	var c cli
	kong.Parse(&c, settings.VersionFlag(), kong.Name("certs"), kong.Description("Make development certificates and nkeys for all parts of Runnel."))
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, "certs:", err)
		os.Exit(1)
	}
	fmt.Println("written to", c.Dir)
}

func (c *cli) run() error {
	_, err := os.Stat(c.Dir)
	if err == nil {
		return fmt.Errorf("%s exists already", c.Dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = devkeys.Make(c.Dir, c.Host, c.Lifetime)
	return err
}
