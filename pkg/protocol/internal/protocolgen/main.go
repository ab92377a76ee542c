// Command protocolgen writes protocol.json and README.md of package protocol from the tables of packages protocol,
// errcode and conversation. scripts/generate.sh runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	out := flag.String("out", "", "directory to write to")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "protocolgen:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	d := collect()
	data, err := d.json()
	if err != nil {
		return fmt.Errorf("encode the tables: %w", err)
	}
	for name, content := range map[string][]byte{"protocol.json": data, "README.md": d.readme()} {
		if err := os.WriteFile(filepath.Join(out, name), content, 0o600); err != nil {
			return fmt.Errorf("write the reference: %w", err)
		}
	}
	return nil
}
