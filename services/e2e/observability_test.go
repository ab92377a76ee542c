package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/certs/certstest"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/listen/reserve"

	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/gateway/operator"
	"github.com/runnelhq/runnel/services/history"
)

const (
	dashboardFile = "../../deploy/dashboards/runnel.json"
	rulesFile     = "../../deploy/alerts/runnel.rules.yaml"
	exampleFile   = "../../deploy/prometheus/prometheus.yaml"
	rulesTestFile = "../../deploy/alerts/runnel.test.yaml"
)

// A real Prometheus scrapes a running installation: every query of the dashboard and every alert must be valid, and use
// series that exist.
func TestDashboardAndAlertsAskForWhatIsExported(t *testing.T) {
	promtool := prometheusTool(t, "promtool")
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", rulesTestFile}} {
		output, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput()
		require.NoError(t, err, "%s", output)
	}
	checkPrometheusExample(t, promtool)
	suite := observedSuite(t)
	p := startPrometheus(t, suite, rulesFile)

	queries := dashboardQueries(t)
	require.Greater(t, len(queries), 40, "the dashboard was read")
	rules := alertQueries(t)
	require.Greater(t, len(rules), 10, "the rules were read")
	var wrong []error
	for _, query := range append(queries, rules...) {
		_, err := p.ask(query)
		wrong = append(wrong, err)
		for _, selector := range selectors(query) {
			wrong = append(wrong, p.look(selector))
		}
	}
	for _, chart := range slices.Concat(operator.Charts(), delivery.Charts(), history.Charts()) {
		selector := chart.Metric
		if strings.HasSuffix(selector, "_seconds") || strings.HasSuffix(selector, "_events") {
			selector += "_count"
		}
		if chart.Label != "" {
			selector += fmt.Sprintf("{%s=%q}", chart.Label, chart.Is)
		}
		wrong = append(wrong, p.look(selector))
	}
	require.NoError(t, errors.Join(wrong...))
	require.Error(t, p.look("runnel_gateway_connection"), "a metric that does not exist is noticed")
	require.Error(t, p.look(`runnel_gateway_command_seconds_bucket{rung="sent"}`), "a label that does not exist is noticed")
	require.Error(t, p.look("sum(rate(x[5m])"), "a query that is none is noticed")
}

// checkPrometheusExample has promtool read the example with the files that it names beside it.
func checkPrometheusExample(t *testing.T, promtool string) {
	t.Helper()
	dir := t.TempDir()
	for name, source := range map[string]string{"prometheus.yaml": exampleFile, "runnel.rules.yaml": rulesFile} {
		text, err := os.ReadFile(source)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "runnel-admin-token"), []byte("0123456789abcdef"), 0o600))
	output, err := exec.CommandContext(t.Context(), promtool, "check", "config", filepath.Join(dir, "prometheus.yaml")).CombinedOutput()
	require.NoError(t, err, "%s", output)
}

// selectors are the series that a query asks for: names with their labels.
func selectors(query string) []string {
	plain := regexp.MustCompile(`\$\w+`).ReplaceAllString(query, "")
	return slices.Compact(slices.Sorted(slices.Values(
		regexp.MustCompile(`\b(?:runnel_\w+|go_\w+|process_\w+|up)\b(?:\{[^}]*\})?`).FindAllString(plain, -1))))
}

func TestSelectors(t *testing.T) {
	require.Equal(t, []string{`runnel_a_bucket{rung="x"}`, "runnel_b", "up"},
		selectors(`histogram_quantile(0.9, sum by (le) (rate(runnel_a_bucket{rung="x"}[$__rate_interval]))) / runnel_b > up`))
}

func dashboardQueries(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	require.NoError(t, json.Unmarshal(data, &dashboard))
	var queries []string
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries = append(queries, target.Expr)
		}
	}
	return queries
}

func alertQueries(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	require.NoError(t, yaml.Unmarshal(data, &file))
	var queries []string
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
			require.NotEmpty(t, rule.Annotations["action"], "%s must say what to do", rule.Alert)
			queries = append(queries, rule.Expr)
		}
	}
	return queries
}

// observedSuite runs two gateways, two workers and a history service, with some traffic between them.
func observedSuite(t *testing.T) *launch.Suite {
	t.Helper()
	programs := binaries(t, launch.Gateway, launch.Delivery, launch.History, launch.NATSServer)
	dir := t.TempDir()
	certificate := certstest.New(t).Issue(dir, "127.0.0.1")
	suite, err := launch.Start(t.Context(), launch.Options{Dir: dir, Binaries: programs, Flags: map[string][]string{
		launch.Gateway: {"--gateway.tls.cert-file=" + certificate.CertFile, "--gateway.tls.key-file=" + certificate.KeyFile},
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, suite.Stop()) })

	received := make(chan client.Event, 16)
	pem, err := os.ReadFile(certificate.CAFile)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	connect := func(user, address string, onEvent func(context.Context, client.Event)) *client.Client {
		c, err := client.New(client.Config{
			URL: strings.Replace(address, "ws://", "wss://", 1), TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, DeviceID: "test", OnEvent: onEvent, Start: clientv1.Start_START_FIRST,
			Token: func(context.Context) (string, error) { return suite.Token(user) },
		})
		require.NoError(t, err)
		require.NoError(t, c.Start(t.Context()))
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ann := connect("ann", suite.URLs[0], func(context.Context, client.Event) {})
	connect("bob", suite.URLs[1], func(_ context.Context, event client.Event) { received <- event })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, err := ann.Submit(ctx, "", group("bob"))
	require.NoError(t, err)
	_, err = ann.Submit(ctx, result.GetConversationId(), text("hello"))
	require.NoError(t, err)
	for range 2 {
		select {
		case <-received:
		case <-ctx.Done():
			require.NoError(t, ctx.Err())
		}
	}
	return suite
}

// prometheusTool finds a program of Debian's package prometheus. CI installs it.
func prometheusTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("%s skipped: %s is not installed (Debian's package prometheus has it)", t.Name(), name)
	}
	require.NoError(t, err)
	return path
}

// scraper is a running Prometheus.
type scraper struct {
	t    *testing.T
	base string
}

// startPrometheus starts a Prometheus that scrapes all services of a suite and evaluates a file of rules.
func startPrometheus(t *testing.T, suite *launch.Suite, rulesFile string) *scraper {
	t.Helper()
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nscrape_configs:\n")
	for job, processes := range map[string][]*launch.Process{
		"runnel-gateway": suite.Gateways, "runnel-delivery": suite.Deliveries, "runnel-history": suite.Histories,
	} {
		fmt.Fprintf(&config, "  - job_name: %s\n    static_configs: [{targets: [", job)
		for i, process := range processes {
			address, err := url.Parse(process.Ready)
			require.NoError(t, err)
			if i > 0 {
				config.WriteString(", ")
			}
			fmt.Fprintf(&config, "%q", address.Host)
		}
		config.WriteString("]}]\n")
	}
	rules, err := filepath.Abs(rulesFile)
	require.NoError(t, err)
	fmt.Fprintf(&config, "rule_files: [%q]\n", rules)
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config.String()), 0o600))
	address, err := reserve.Address()
	require.NoError(t, err)
	process, err := launch.Run(t.Context(), launch.Command{
		Name: "prometheus", Path: prometheusTool(t, "prometheus"), Log: filepath.Join(dir, "prometheus.log"), Ready: "http://" + address + "/-/ready",
		Args: []string{"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, process.Stop()) })
	p := &scraper{t: t, base: "http://" + address}
	// Rates need two samples of every process.
	require.Eventually(t, func() bool {
		return p.look("count(rate(process_cpu_seconds_total[10s])) == 5") == nil
	}, 2*patience, 100*time.Millisecond)
	return p
}

// look checks that a query returns something.
func (p *scraper) look(query string) error {
	count, err := p.ask(query)
	if err == nil && count == 0 {
		err = fmt.Errorf("nothing is exported as %s", query)
	}
	return err
}

// ask evaluates a query and returns the number of series in the answer.
func (p *scraper) ask(query string) (int, error) {
	query = strings.ReplaceAll(query, "$__rate_interval", "10s")
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/api/v1/query?query="+url.QueryEscape(query), http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		return 0, err
	}
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   struct {
			Result []json.RawMessage `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body.Bytes(), &answer); err != nil {
		return 0, fmt.Errorf("%w: %s", err, body.String())
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("%s: %s", query, answer.Error)
	}
	return len(answer.Data.Result), nil
}
