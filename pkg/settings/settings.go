// Package settings turns a struct into a program's settings: the same names as flags, environment variables and keys of a
// YAML file, with help that lists all three.
//
// A struct describes the settings with kong's tags; nested structs get a dotted prefix:
//
//	var cli struct {
//		Gateway gateway.Config `embed:"" prefix:"gateway."`
//	}
//
// In this example, a field MaxConnections of gateway.Config is the flag --gateway.max-connections, the environment variable
// RUNNEL_GATEWAY_MAX_CONNECTIONS and the key max-connections under gateway: in the file that --config or RUNNEL_CONFIG
// names. A flag overrides the environment, the environment overrides the file, the file overrides the default. Names listed in a
// field's env tag are read after the derived name. An unknown key in the file is an error: a setting with a typo
// must not silently keep its default. For the same reason, an environment variable that begins with RUNNEL_ but is not a setting is an
// error, except those that Kubernetes adds for services.
//
// A number has the tag range, such as range:"1..65536", range:"1s.." or range:"0,1ms..1h"; other values are refused. A configuration
// with a method Validate() error checks further rules. All checks are made before the program starts its work.
//
// A string field tagged secret:"" is read from the environment, from the file that <ENVIRONMENT VARIABLE>_FILE names, or
// from the settings file. It has no flag, because every user of the machine could read the flag. --print-config, which prints the
// settings in force as YAML, masks secrets, and passwords and tokens in URLs.
//
// The file of a secret is read once, unless the struct also has a field with the same name plus File that is tagged
// secretfile:"". That field receives the path; the program reads the file itself, and again when it changes: see package watched.
//
// The package does not interpret the settings, and keeps no state outside of the parser that it makes.
package settings

import (
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/buildinfo"
)

// ExitUsage is the exit status for invalid settings.
const ExitUsage = 2

// envPrefix is the prefix of every derived environment variable.
const envPrefix = "RUNNEL"

const (
	configFlag      = "config"
	printConfigFlag = "print-config"
	versionFlag     = "version"
	helpFlag        = "help"
	secretTag       = "secret"
	secretFileTag   = "secretfile"
	fileSuffix      = "-file"
)

// builtin are the flags that every program has in addition to its own.
type builtin struct {
	Config      string      `help:"YAML file to read settings from." placeholder:"FILE"`
	PrintConfig printConfig `help:"Print the settings in force as YAML, secrets masked, and exit."`
	Version     showVersion `help:"Print the version, the commit, its date and the version of Go, and exit."`
}

// showVersion is the flag --version. It works even if settings are invalid.
type showVersion bool

// BeforeReset runs before any setting is read.
func (showVersion) BeforeReset(ctx *kong.Context) error {
	if _, err := fmt.Fprintf(ctx.Stdout, "%s %s\n", ctx.Model.Name, buildinfo.Read()); err != nil {
		return fmt.Errorf("print the version: %w", err)
	}
	ctx.Exit(0)
	return nil
}

// VersionFlag adds --version to the parser of a program that has no other settings of this package.
func VersionFlag() kong.Option {
	return kong.Embed(&struct {
		Version showVersion `help:"Print the version, the commit, its date and the version of Go, and exit."`
	}{})
}

// New makes the parser of a program's settings. cli is a pointer to the struct that receives them. An error means a
// mistake in the struct: two settings with the same environment variable, or a secret that is not a string.
func New(app, description string, cli any, extra ...kong.Option) (*kong.Kong, error) {
	s := &sources{}
	options := append([]kong.Option{
		kong.Name(app),
		kong.Description(description),
		kong.Embed(&builtin{}),
		kong.PostBuild(s.prepare),
		kong.Resolvers(s),
		kong.WithBeforeReset(refuseSecretFlags),
		kong.WithBeforeResolve(s.load),
		kong.WithAfterApply(validate),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 120}),
		kong.ValueFormatter(formatHelp),
		kong.Help(printHelp),
	}, extra...)
	parser, err := kong.New(cli, options...)
	if err != nil {
		return nil, fmt.Errorf("settings of %s: %w", app, err)
	}
	return parser, nil
}

// Parse reads the settings of the program from its arguments, environment and settings file, and returns the selected
// command. In two cases it exits instead of returning: with 0 after --help or --print-config, and with ExitUsage if
// settings are invalid.
func Parse(app, description string, cli any, extra ...kong.Option) *kong.Context {
	parser, err := New(app, description, cli, extra...)
	if err != nil {
		panic(err) //nolint:forbidigo // the struct is wrong, not the user's input: every start of the program fails
	}
	ctx, err := parser.Parse(os.Args[1:])
	if err != nil {
		report(parser, err)
		parser.Exit(ExitUsage)
	}
	return ctx
}

// report prints the error and what to do about it.
func report(parser *kong.Kong, err error) {
	command := parser.Model.Name
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if selected := parse.Context.Selected(); selected != nil {
			command = selected.FullPath()
		}
	}
	_, _ = fmt.Fprintf(parser.Stderr, "%s: error: %v\nRun %q to see every setting.\n", parser.Model.Name, err, command+" --help")
}

// refuseSecretFlags returns an error for a secret on the command line, before any setting is read. The process list has
// already shown the secret, but the error prevents regular use of such a flag.
func refuseSecretFlags(ctx *kong.Context) error {
	for _, path := range ctx.Path {
		if path.Flag == nil || !path.Flag.Tag.Has(secretTag) {
			continue
		}
		env := path.Flag.Envs[0]
		return fmt.Errorf("--%s: a secret does not belong on the command line, where every user of the machine can read it; set %s, or %s_FILE to a file that holds it",
			path.Flag.Name, env, env)
	}
	return nil
}

// isSetting reports whether a flag is a setting, as opposed to a query such as --help.
func isSetting(flag *kong.Flag) bool {
	return flag.Name != helpFlag && flag.Name != printConfigFlag && flag.Name != versionFlag
}

// isFileKey reports whether a flag can be set in the settings file.
func isFileKey(flag *kong.Flag) bool { return isSetting(flag) && flag.Name != configFlag }

func isString(flag *kong.Flag) bool { return flag.Target.Kind() == reflect.String }
