package settings

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/watched"
)

// sources is kong's resolver: kong asks it for the value of every flag that is not on the command line.
type sources struct {
	config *kong.Flag            // the flag that names the settings file
	flags  map[string]*kong.Flag // the flags that a settings file may contain, by key

	secretFiles map[string]bool // names of the flags that contain the path of a secret's file
	variables   map[string]bool // the environment variables that are settings

	loadedFor *kong.Context // the parse for which the file was loaded
	path      string
	file      map[string]entry
}

// Validate checks the environment and the range of every number. load checks the settings file. kong calls Validate
// before any hook or command.
func (s *sources) Validate(app *kong.Application) error {
	if err := s.checkEnvironment(); err != nil {
		return err
	}
	return kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		flag, ok := node.(*kong.Flag)
		if ok && isNumber(flag.Target.Type()) && (flag.HasDefault || !flag.Target.IsZero()) {
			if err := checkRange("--"+flag.Name, flag.Tag.Get(rangeTag), flag.Target); err != nil {
				return err
			}
		}
		return next(nil)
	})
}

// prepare sets the environment variables of the flags, groups the flags for the help, and checks that no two settings
// collide.
func (s *sources) prepare(parser *kong.Kong) error {
	s.flags, s.secretFiles = map[string]*kong.Flag{}, map[string]bool{}
	if err := kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok && flag.Tag.Has(secretFileTag) {
			s.secretFiles[flag.Name] = true
		}
		return next(nil)
	}); err != nil {
		return fmt.Errorf("list the settings: %w", err)
	}
	s.variables = map[string]bool{}
	owner := map[string]string{} // environment variable → flag
	claim := func(env, flag string) error {
		if other, taken := owner[env]; taken && other != flag {
			return fmt.Errorf("--%s and --%s would both be read from %s", other, flag, env)
		}
		owner[env], s.variables[env] = flag, true
		return nil
	}
	return kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		flag, ok := node.(*kong.Flag)
		if !ok {
			return next(nil)
		}
		describe(flag)
		if err := checkFlag(flag); err != nil {
			return err
		}
		if !isSetting(flag) {
			return next(nil)
		}
		env := envName(flag.Name)
		flag.Envs = append([]string{env}, flag.Tag.Envs...)
		flag.Tag.Envs = flag.Envs
		if err := claim(env, flag.Name); err != nil {
			return err
		}
		if flag.Tag.Has(secretTag) {
			if !isString(flag) {
				return fmt.Errorf("--%s: a secret must be a string", flag.Name)
			}
			s.variables[env+"_FILE"] = true
			if !s.readsItself(flag) {
				if err := claim(env+"_FILE", flag.Name); err != nil {
					return err
				}
			}
			flag.Hidden = true // printHelp lists this flag among the secrets
		}
		if flag.Name == configFlag {
			s.config = flag
		}
		if isFileKey(flag) {
			s.flags[flag.Name] = flag
		}
		return next(nil)
	})
}

// readsItself reports whether the program itself reads the file of a secret, so that it can read the file again when it
// changes. Then <ENVIRONMENT VARIABLE>_FILE sets the path, which is a setting of its own.
func (s *sources) readsItself(secret *kong.Flag) bool { return s.secretFiles[secret.Name+fileSuffix] }

// envName returns RUNNEL_GATEWAY_MAX_CONNECTIONS for gateway.max-connections.
func envName(flag string) string {
	return envPrefix + "_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(flag))
}

// load reads the settings file. kong calls it for each element of the command line; only the first call reads.
func (s *sources) load(ctx *kong.Context) error {
	if s.loadedFor == ctx {
		return nil
	}
	s.loadedFor, s.path, s.file = ctx, "", nil
	path, _ := ctx.FlagValue(s.config).(string)
	if path == "" {
		return nil
	}
	file, err := readFile(path, s.flags)
	if err != nil {
		return fmt.Errorf("settings file %s: %w", path, err)
	}
	s.path, s.file = path, file
	return nil
}

// Resolve returns the value of a flag that is not on the command line, or nil. Values in the environment are already set
// when kong calls it; nil leaves them unchanged.
func (s *sources) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	env := firstSet(flag.Envs)
	if flag.Tag.Has(secretTag) {
		fileEnv := flag.Envs[0] + "_FILE"
		if path, ok := os.LookupEnv(fileEnv); ok {
			switch {
			case env != "":
				return nil, fmt.Errorf("%s and %s are both set; set one", env, fileEnv)
			case s.readsItself(flag):
				return nil, nil
			}
			secret, err := watched.ReadSecret(path)
			if err != nil {
				return nil, fmt.Errorf("reading the file named by %s: %w", fileEnv, err)
			}
			return secret, nil
		}
	}
	if env != "" {
		return nil, nil
	}
	entry, ok := s.file[flag.Name]
	if !ok {
		return nil, nil
	}
	if flag.Tag.Has(secretTag) && entry.value == mask {
		return nil, fmt.Errorf("%s:%d holds the mask that --%s prints in place of a secret; put the secret there or take the line out", s.path, entry.line, printConfigFlag)
	}
	// kong would also parse the value, but its error could not name the source of the value.
	scan := kong.Scan().PushTyped(entry.value, kong.FlagValueToken)
	trial := reflect.New(flag.Target.Type()).Elem()
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, trial); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", s.path, entry.line, err)
	}
	return entry.value, nil
}

func firstSet(envs []string) string {
	for _, env := range envs {
		if _, ok := os.LookupEnv(env); ok {
			return env
		}
	}
	return ""
}
