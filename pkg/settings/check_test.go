package settings_test

import (
	"errors"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/settings"
)

func TestNumbersOutsideTheirRangeAreRefused(t *testing.T) {
	for arg, want := range map[string]string{
		"--gateway.max-connections=0":      "--gateway.max-connections is 0: must be at least 1",
		"--gateway.limits.rate=0":          "--gateway.limits.rate is 0: must be 0.1 to 1000",
		"--gateway.limits.rate=NaN":        "--gateway.limits.rate is NaN: must be 0.1 to 1000",
		"--gateway.limits.burst=3m":        "--gateway.limits.burst is 3m0s: must be 0 or 1ms to 2m",
		"--gateway.limits.burst=1ns":       "--gateway.limits.burst is 1ns: must be 0 or 1ms to 2m",
		"--gateway.max-connections=999999": "",
		"--gateway.limits.burst=0s":        "",
	} {
		if err := run(t, arg).err; want == "" {
			require.NoError(t, err, arg)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
}

func TestANumberNeedsARange(t *testing.T) {
	var cli struct {
		Size int `help:"Size."`
	}
	_, err := settings.New("runnel", "", &cli)
	require.ErrorContains(t, err, "--size: a number needs a range tag")
	require.ErrorContains(t, settings.CheckRanges("part.", cli), "part.size has no range tag")
}

func TestRangesOfAConfigurationMadeInCode(t *testing.T) {
	ok := limits{Rate: 1}
	require.NoError(t, settings.CheckRanges("gateway.limits.", ok))
	require.ErrorContains(t, settings.CheckRanges("gateway.limits.", limits{}), "gateway.limits.rate is 0: must be 0.1 to 1000")
	var nested struct {
		Limits limits `embed:"" prefix:"limits."`
		Plain  limits // not part of the settings
	}
	require.ErrorContains(t, settings.CheckRanges("gateway.", &nested), "gateway.limits.rate is 0")
}

func TestUnknownVariablesAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ variable, value, want string }{
		"a typo":               {"RUNNEL_GATEWAY_MAX_CONECTIONS", "5", "did you mean RUNNEL_GATEWAY_MAX_CONNECTIONS?"},
		"a section left out":   {"RUNNEL_LOGLEVEL", "debug", "did you mean RUNNEL_LOG_LEVEL?"},
		"not similar":          {"RUNNEL_WHATEVER_IT_IS", "5", "RUNNEL_WHATEVER_IT_IS is no setting"},
		"a section of another": {"RUNNEL_DELIVERY_MAX_BATCH", "5", ""},
		"Kubernetes: host":     {"RUNNEL_GATEWAY_SERVICE_HOST", "10.0.0.1", ""},
		"Kubernetes: ports":    {"RUNNEL_GATEWAY_SERVICE_PORT_CLIENTS", "8080", ""},
		"Kubernetes: link":     {"RUNNEL_GATEWAY_PORT", "tcp://10.0.0.1:8080", ""},
		"Kubernetes: address":  {"RUNNEL_GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1", ""},
		"a port that is none":  {"RUNNEL_GATEWAY_PORT", "8080", "RUNNEL_GATEWAY_PORT is no setting"},
		"the file of a secret": {"RUNNEL_AUTH_SECRET_FILE", "settings_test.go", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(test.variable, test.value)
			err := run(t).err
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}
}

// part is a configuration with its own Validate method.
type part struct {
	Name string `help:"Name."`
}

var errPart = errors.New("the part is wrong")

func (p part) Validate() error {
	if p.Name == "wrong" {
		return errPart
	}
	return nil
}

func TestTheRulesOfEveryPartAreChecked(t *testing.T) {
	type outer struct {
		Part part `embed:"" prefix:"part."`
	}
	var cli struct {
		Serve struct {
			outer `embed:""`
		} `cmd:"" default:"withargs" help:"Serve."`
		Other struct {
			Nested outer `embed:"" prefix:"nested."`
		} `cmd:"" help:"Other."`
	}
	parse := func(args ...string) error {
		parser, err := settings.New("runnel", "", &cli, kong.Exit(func(int) {}))
		require.NoError(t, err)
		_, err = parser.Parse(args)
		return err
	}
	require.NoError(t, parse())
	require.ErrorIs(t, parse("--part.name=wrong"), errPart)
	require.ErrorIs(t, parse("other", "--nested.part.name=wrong"), errPart)
	require.NoError(t, parse("other", "--nested.part.name=right"))
}
