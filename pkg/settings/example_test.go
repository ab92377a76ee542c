package settings_test

import (
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/settings"
)

func ExampleNew() {
	var cli struct {
		Gateway struct {
			MaxConnections int `help:"Connections at most." default:"1000" range:"1.."`
		} `embed:"" prefix:"gateway."`
	}
	parser, err := settings.New("example", "Shows settings.", &cli, kong.Writers(os.Stdout, os.Stdout), kong.Exit(func(int) {}))
	if err != nil {
		fmt.Println(err)
		return
	}
	// A main function calls settings.Parse instead, which does all of this with the arguments of the program.
	if _, err := parser.Parse([]string{"--gateway.max-connections=5", "--print-config"}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// gateway:
	//     max-connections: 5
}
