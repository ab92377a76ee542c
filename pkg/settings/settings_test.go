package settings_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/settings"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

type limits struct {
	Rate  float64       `help:"Frames a second for one connection." default:"50" range:"0.1..1000"`
	Burst time.Duration `help:"Time a connection may save up for a burst." default:"2s" range:"0,1ms..2m"`
}

type sample struct {
	LogLevel string `help:"Least severe level to log." enum:"debug,info,warn,error" default:"info"`
	Gateway  struct {
		MaxConnections int               `help:"Connections at most." default:"1000" range:"1.."`
		Listen         string            `help:"Address for clients." default:":8080"`
		Origins        []string          `help:"Origins that browsers may connect from."`
		Labels         map[string]string `help:"Labels of this gateway."`
		Compress       bool              `help:"Compress frames."`
		Limits         limits            `embed:"" prefix:"limits."`
		NATSURL        string            `name:"nats-url" help:"Where the broker is." env:"NATS_URL" default:"nats://localhost"`
	} `embed:"" prefix:"gateway."`
	Auth struct {
		Secret string `help:"Key that signs tokens." secret:""`
	} `embed:"" prefix:"auth."`
	Run   struct{} `cmd:"" default:"1" help:"Run everything."`
	Token struct {
		User string `arg:"" help:"Who the token is for."`
	} `cmd:"" help:"Mint a token."`
}

// outcome is the output and the exit status of a program that is run with certain settings.
type outcome struct {
	cli    sample
	stdout string
	exit   int // -1 if the program would have continued
	err    error
}

func run(t *testing.T, args ...string) outcome {
	t.Helper()
	t.Setenv("COLUMNS", "110")
	o := outcome{exit: -1}
	var stdout, stderr bytes.Buffer
	parser, err := settings.New("runnel", "A messaging backend.", &o.cli,
		kong.Writers(&stdout, &stderr), kong.Exit(func(code int) { o.exit = code }))
	require.NoError(t, err)
	_, o.err = parser.Parse(args)
	o.stdout = stdout.String()
	return o
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runnel.yaml")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestPrecedence(t *testing.T) {
	config := file(t, "gateway: {max-connections: 3, listen: ':3'}\n")

	require.Equal(t, 1000, run(t).cli.Gateway.MaxConnections, "default")
	require.Equal(t, 3, run(t, "--config", config).cli.Gateway.MaxConnections, "file beats default")

	t.Setenv("RUNNEL_GATEWAY_MAX_CONNECTIONS", "2")
	require.Equal(t, 2, run(t, "--config", config).cli.Gateway.MaxConnections, "environment beats file")
	require.Equal(t, 1, run(t, "--config", config, "--gateway.max-connections=1").cli.Gateway.MaxConnections, "flag beats environment")
	require.Equal(t, ":3", run(t, "--config", config).cli.Gateway.Listen, "what is not overridden stays")

	t.Setenv("RUNNEL_CONFIG", config)
	require.Equal(t, ":3", run(t).cli.Gateway.Listen, "the file can be named by the environment")
}

func TestDeclaredEnvironmentComesAfterTheDerived(t *testing.T) {
	t.Setenv("NATS_URL", "nats://declared")
	require.Equal(t, "nats://declared", run(t).cli.Gateway.NATSURL)
	t.Setenv("RUNNEL_GATEWAY_NATS_URL", "nats://derived")
	require.Equal(t, "nats://derived", run(t).cli.Gateway.NATSURL)
}

func TestFileValues(t *testing.T) {
	got := run(t, "--config", file(t, `
log-level: debug
gateway:
  origins: ["https://a.example", "https://b.example,with-comma"]
  labels: {zone: a, rack: "7"}
  compress: true
  listen:          # no value: the default stays
  limits:
    rate: 2.5
    burst: 1m30s
auth:              # nothing in it
`))
	require.NoError(t, got.err)
	gateway := got.cli.Gateway
	require.Equal(t, "debug", got.cli.LogLevel)
	require.Equal(t, []string{"https://a.example", "https://b.example,with-comma"}, gateway.Origins)
	require.Equal(t, map[string]string{"zone": "a", "rack": "7"}, gateway.Labels)
	require.True(t, gateway.Compress)
	require.Equal(t, ":8080", gateway.Listen)
	require.Equal(t, limits{Rate: 2.5, Burst: 90 * time.Second}, gateway.Limits)

	require.Equal(t, 5, run(t, "--config", file(t, "gateway.max-connections: 5")).cli.Gateway.MaxConnections, "a dotted key")
	require.NoError(t, run(t, "--config", file(t, "# nothing\n")).err)
	require.NoError(t, run(t, "--config", file(t, "")).err)
}

func TestFileMistakesAreNamed(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"unknown key":       {"gateway:\n  max-conections: 5\n", `line 2: unknown key "gateway.max-conections"`},
		"unknown section":   {"gatway: {}\n", `unknown key "gatway"`},
		"two at once":       {"a: 1\nb: 2\n", `unknown key "b"`},
		"question as key":   {"print-config: true\n", `unknown key "print-config"`},
		"file in the file":  {"config: other.yaml\n", `unknown key "config"`},
		"twice":             {"gateway: {listen: a}\ngateway.listen: b\n", `"gateway.listen" is set already in line 1`},
		"wrong type":        {"gateway:\n  max-connections: many\n", `:2: expected a valid 64 bit int but got "many"`},
		"list for a number": {"gateway: {max-connections: [1]}\n", `"gateway.max-connections" does not take a list`},
		"nested list":       {"gateway: {origins: [[a]]}\n", `"gateway.origins" does not take a list inside`},
		"value for section": {"gateway: 5\n", `"gateway" must be a mapping`},
		"not a mapping":     {"- a\n", "the file must be a mapping"},
		"not YAML":          {"a: [\n", "yaml:"},
		"two documents":     {"log-level: info\n---\nlog-level: warn\n", "more than one document"},
		"alias":             {"gateway: {listen: &a x, origins: *a}\n", `"gateway.origins" does not take an alias`},
		"huge":              {"# " + strings.Repeat("x", 1<<20) + "\n", "larger than"},
		"not in the enum":   {"log-level: loud\n", `must be one of "debug","info","warn","error" but got "loud"`},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, run(t, "--config", file(t, test.content)).err, test.want)
		})
	}
	require.ErrorIs(t, run(t, "--config", filepath.Join(t.TempDir(), "none.yaml")).err, os.ErrNotExist)
}

func TestSecrets(t *testing.T) {
	t.Run("environment", func(t *testing.T) {
		t.Setenv("RUNNEL_AUTH_SECRET", "s3cret")
		require.Equal(t, "s3cret", run(t).cli.Auth.Secret)
	})
	t.Run("file named by the environment", func(t *testing.T) {
		t.Setenv("RUNNEL_AUTH_SECRET_FILE", file(t, "s3cret\r\n"))
		require.Equal(t, "s3cret", run(t).cli.Auth.Secret)
		t.Setenv("RUNNEL_AUTH_SECRET", "s3cret")
		require.ErrorContains(t, run(t).err, "RUNNEL_AUTH_SECRET and RUNNEL_AUTH_SECRET_FILE are both set")
	})
	t.Run("it beats the settings file", func(t *testing.T) {
		config := file(t, "auth: {secret: from-settings}")
		require.Equal(t, "from-settings", run(t, "--config", config).cli.Auth.Secret)
		t.Setenv("RUNNEL_AUTH_SECRET_FILE", file(t, "s3cret"))
		require.Equal(t, "s3cret", run(t, "--config", config).cli.Auth.Secret)
	})
	t.Run("missing file", func(t *testing.T) {
		t.Setenv("RUNNEL_AUTH_SECRET_FILE", filepath.Join(t.TempDir(), "none"))
		got := run(t)
		require.ErrorIs(t, got.err, os.ErrNotExist)
		require.ErrorContains(t, got.err, "RUNNEL_AUTH_SECRET_FILE")
	})
	t.Run("too large", func(t *testing.T) {
		t.Setenv("RUNNEL_AUTH_SECRET_FILE", "/dev/zero")
		require.ErrorContains(t, run(t).err, "too large")
	})
	t.Run("never a flag", func(t *testing.T) {
		got := run(t, "--auth.secret=s3cret")
		require.ErrorContains(t, got.err, "set RUNNEL_AUTH_SECRET, or RUNNEL_AUTH_SECRET_FILE")
		require.NotContains(t, got.err.Error(), "s3cret")
	})
}

// If the program itself reads the file of a secret, settings pass on the file's path.
func TestSecretFilesThatAreReadAgain(t *testing.T) {
	type config struct {
		Auth struct {
			Secret     string `secret:""`
			SecretFile string `secretfile:""`
		} `embed:"" prefix:"auth."`
	}
	parse := func(args ...string) (config, error) {
		var cli config
		parser, err := settings.New("app", "", &cli)
		require.NoError(t, err)
		_, err = parser.Parse(args)
		return cli, err
	}
	inline := file(t, "auth: {secret: from-settings}")
	t.Setenv("RUNNEL_AUTH_SECRET_FILE", "/run/secrets/auth")
	for _, args := range [][]string{nil, {"--config", inline}} {
		cli, err := parse(args...)
		require.NoError(t, err)
		require.Equal(t, "/run/secrets/auth", cli.Auth.SecretFile)
		require.Empty(t, cli.Auth.Secret)
	}
	cli, err := parse("--auth.secret-file=/elsewhere")
	require.NoError(t, err)
	require.Equal(t, "/elsewhere", cli.Auth.SecretFile, "a path is no secret")
	t.Setenv("RUNNEL_AUTH_SECRET", "s3cret")
	_, err = parse()
	require.ErrorContains(t, err, "RUNNEL_AUTH_SECRET and RUNNEL_AUTH_SECRET_FILE are both set")
}

func TestPrintConfig(t *testing.T) {
	t.Setenv("RUNNEL_AUTH_SECRET", "s3cret")
	t.Setenv("NATS_URL", "nats://user:pa55@broker:4222")
	got := run(t, "--print-config", "--gateway.listen=5", "--gateway.origins=a,b")
	require.NoError(t, got.err)
	require.Zero(t, got.exit)
	require.Equal(t, `log-level: info
gateway:
    max-connections: 1000
    listen: "5"
    origins:
        - a
        - b
    labels: {}
    compress: false
    limits:
        rate: 50
        burst: 2s
    nats-url: nats://user:********@broker:4222
auth:
    secret: '********'
`, got.stdout)

	t.Run("what it prints can be read, but a mask is no secret", func(t *testing.T) {
		require.NoError(t, os.Unsetenv("RUNNEL_AUTH_SECRET"))
		require.ErrorContains(t, run(t, "--config", file(t, got.stdout)).err, "holds the mask")
		t.Setenv("RUNNEL_AUTH_SECRET", "s3cret")
		again := run(t, "--config", file(t, got.stdout), "--print-config")
		require.NoError(t, again.err)
		require.Equal(t, got.stdout, again.stdout)
	})
}

// Credentials in addresses are hidden wherever a server accepts them, even if a password was not escaped as required.
func TestPrintConfigHidesCredentials(t *testing.T) {
	for set, want := range map[string]string{
		"nats://broker:4222":                                "nats://broker:4222",
		"nats://t0ken@broker:4222":                          "nats://********@broker:4222",
		"t0ken@broker:4222":                                 "'********@broker:4222'",
		"user:pa55@broker:4222":                             "user:********@broker:4222",
		"nats://a:4222,nats://user:pa55@b:4222,tls://t0k@c": "nats://a:4222,nats://user:********@b:4222,tls://********@c",
		"nats://user:pa@55@broker:4222":                     "nats://user:********@broker:4222",
		"postgres://user:pa/55+=@db/runnel?sslmode=require": "postgres://user:********@db/runnel?sslmode=require",
		"postgres://db/runnel?user=u&password=pa55&x=y":     "postgres://db/runnel?user=u&password=********&x=y",
		"host=db user=u password=pa55":                      "host=db user=u password=********",
		"https://issuer.example/@tenant/jwks.json":          "https://issuer.example/@tenant/jwks.json",
	} {
		t.Setenv("NATS_URL", set)
		require.Contains(t, run(t, "--print-config").stdout, "nats-url: "+want+"\n")
	}
	t.Setenv("NATS_URL", "nats://broker")
	require.NotContains(t, run(t, "--print-config", "--gateway.origins=https://user:pa55@a.example").stdout, "pa55")
}

func TestHelp(t *testing.T) {
	for name, args := range map[string][]string{"help.txt": {"--help"}, "help-token.txt": {"token", "--help"}} {
		got := run(t, args...)
		require.Zero(t, got.exit)
		golden := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(golden, []byte(got.stdout), 0o600))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), got.stdout)
	}
}

func TestMistakesInTheStruct(t *testing.T) {
	for want, cli := range map[string]any{
		"would both be read from RUNNEL_A_B": &struct {
			AB struct{ B string } `embed:"" prefix:"a."`
			X  string             `name:"a-b"`
		}{},
		"would both be read from RUNNEL_KEY_FILE": &struct {
			Key     string `secret:""`
			KeyFile string
		}{},
		"a secret must be a string": &struct {
			Pin int `secret:""`
		}{},
	} {
		_, err := settings.New("app", "", cli)
		require.ErrorContains(t, err, want)
	}
}
