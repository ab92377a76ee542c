package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// An alert that no test has seen firing may never fire.
func TestEveryAlertFiresInATest(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
				Expr  string `yaml:"expr"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	decodeYAML(t, rulesFile, &rules)
	var tests struct {
		Tests []struct {
			Checks []struct {
				Alert    string `yaml:"alertname"`
				Expected []any  `yaml:"exp_alerts"` //nolint:tagliatelle // promtool's names
			} `yaml:"alert_rule_test"` //nolint:tagliatelle // as above
		} `yaml:"tests"`
	}
	decodeYAML(t, rulesTestFile, &tests)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, check := range test.Checks {
			if len(check.Expected) > 0 {
				fires[check.Alert] = true
			} else {
				silent[check.Alert] = true
			}
		}
	}
	// Two installations in one Prometheus must not hide each other's outages.
	perInstallation := regexp.MustCompile(`\b(?:sum|max|min|count|group)\s*\(`)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			require.True(t, fires[rule.Alert], "no test of promtool sees %s firing", rule.Alert)
			require.True(t, silent[rule.Alert], "no test of promtool sees %s silent", rule.Alert)
			require.Empty(t, perInstallation.FindString(rule.Expr), "%s mixes installations", rule.Alert)
		}
	}
}

func decodeYAML(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(data, into))
}

// A real Prometheus with the real rules, only faster, watches an installation whose parts are killed: one of several, and all. The
// loss of one instance pages nobody; when nothing of a part is left, the alert that names it fires; and it ends when the part is
// back.
func TestTheLossOfEachPartFiresItsAlert(t *testing.T) {
	prometheusTool(t, "prometheus")
	suite := observedSuite(t)
	p := startPrometheus(t, suite, fasterRules(t))
	gateways, workers := suite.Gateways, suite.Deliveries
	for _, step := range []struct {
		name   string
		kill   []*launch.Process
		fires  []string // critical alerts that must fire
		silent []string // critical alerts that must not; nil: all others
	}{
		{"one gateway", gateways[:1], nil, nil},
		{"all gateways", gateways, []string{"RunnelNoGateway"}, nil},
		{"one worker", workers[:1], nil, nil},
		{"all workers", workers, []string{"RunnelNoDelivery", "RunnelPartitionWithoutOwner"}, nil},
		{"history", suite.Histories, []string{"RunnelNoHistory"}, []string{"RunnelNoGateway", "RunnelNoNATS"}},
		{"NATS", suite.NATS, []string{"RunnelNoNATS", "RunnelNoGateway"}, []string{"RunnelNoHistory"}},
		{
			"everything", slices.Concat(gateways, workers, suite.Histories, suite.NATS),
			[]string{"RunnelNoGateway", "RunnelNoDelivery", "RunnelNoHistory", "RunnelPartitionWithoutOwner"},
			[]string{}, // without a process nobody knows of NATS
		},
	} {
		t.Run(step.name, func(t *testing.T) {
			p.await(t, func(firing []alert) bool { return len(pages(firing)) == 0 && !has(firing, "RunnelDown") })
			for _, process := range step.kill {
				process.Kill()
			}
			down := len(step.kill)
			if step.name == "NATS" || step.name == "everything" {
				down -= len(suite.NATS) // which is not scraped
			}
			p.await(t, func(firing []alert) bool {
				paged := pages(firing)
				for _, name := range step.fires {
					if !slices.Contains(paged, name) {
						return false
					}
				}
				for _, name := range paged {
					if step.silent == nil && !slices.Contains(step.fires, name) || slices.Contains(step.silent, name) {
						return false
					}
				}
				return count(firing, "RunnelDown") == down
			})
			for _, process := range slices.Backward(step.kill) {
				require.NoError(t, process.Restart(t.Context()))
			}
		})
	}
	p.await(t, func(firing []alert) bool { return len(firing) == 0 })
}

// fasterRules are the rules with shorter times.
func fasterRules(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	text = regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAll(text, []byte("$1 3s"))
	text = regexp.MustCompile(`\[2m\]`).ReplaceAll(text, []byte("[5s]"))
	file := filepath.Join(t.TempDir(), "runnel.rules.yaml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}

// alert is an alert of Prometheus.
type alert struct {
	Labels map[string]string `json:"labels"`
	State  string            `json:"state"`
}

// pages are the names of the critical alerts.
func pages(firing []alert) (names []string) {
	for _, a := range firing {
		if a.Labels["severity"] == "critical" {
			names = append(names, a.Labels["alertname"])
		}
	}
	return names
}

func count(firing []alert, name string) (n int) {
	for _, a := range firing {
		if a.Labels["alertname"] == name {
			n++
		}
	}
	return n
}

func has(firing []alert, name string) bool { return count(firing, name) > 0 }

// await waits until the alerts that fire are as wanted.
func (p *scraper) await(t *testing.T, wanted func(firing []alert) bool) {
	t.Helper()
	var firing []alert
	require.Eventually(t, func() bool {
		firing = p.firing(t)
		return wanted(firing)
	}, 3*patience, 200*time.Millisecond, "%s", lazy(func() string { return fmt.Sprint(firing) }))
}

// lazy is a text that is made when it is printed.
type lazy func() string

// String implements fmt.Stringer.
func (l lazy) String() string { return l() }

// firing are the alerts that fire now. Those about clocks and the window of explanations depend on the machine.
func (p *scraper) firing(t *testing.T) (firing []alert) {
	t.Helper()
	response, err := http.Get(p.base + "/api/v1/alerts")
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Data struct {
			Alerts []alert `json:"alerts"`
		} `json:"data"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&answer))
	for _, a := range answer.Data.Alerts {
		if name := a.Labels["alertname"]; a.State == "firing" && name != "RunnelExplainForgetsTooSoon" && name != "RunnelCertificateExpires" {
			firing = append(firing, a)
		}
	}
	return firing
}
