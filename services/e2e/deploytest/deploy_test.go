package deploytest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestInstallations runs the trial installation as processes, and compares every installation with their actual behaviour.
func TestInstallations(t *testing.T) {
	facts := gather(t)
	t.Run("production", func(t *testing.T) { require.Empty(t, facts.inspect(decode(t, production(t)))) })
	t.Run("trial", func(t *testing.T) { require.Empty(t, facts.inspect(decode(t, manifest(t, "trial.yaml")))) })
	t.Run("variants", func(t *testing.T) { testVariants(t, facts) })
	t.Run("mutations", func(t *testing.T) { testMutations(t, facts) })
	t.Run("ports", func(t *testing.T) { testListeners(t, facts) })
	t.Run("metrics", func(t *testing.T) { testMetricsWantToken(t, facts) })
	t.Run("compose", func(t *testing.T) { testCompose(t, facts.Facts) })
	t.Run("secured", func(t *testing.T) { testSecured(t, facts.Facts) })
	t.Run("helm test", func(t *testing.T) { testHelmTest(t, facts) })
	t.Run("outage", func(t *testing.T) { testOutage(t, facts) })
}

// bed is the trial installation, running.
type bed struct {
	Facts

	trial   *Objects
	running *Running
}

func (b bed) inspect(o *Objects) []error { return Inspect(o, b.Facts) }

// deployDir is deploy/ of the repository.
const deployDir = "../../../deploy"

func manifest(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "manifests", name))
	require.NoError(t, err)
	return string(text)
}

// production is a whole installation: with certificates by cert-manager, an Ingress, and scraped by the Prometheus operator.
func production(t *testing.T) string {
	t.Helper()
	var documents []string
	for _, name := range []string{"runnel.yaml", "certificates.yaml", "ingress.yaml", "monitoring.yaml"} {
		documents = append(documents, manifest(t, name))
	}
	return strings.Join(documents, "\n---\n")
}

// everything is what the chart can render at most: production with autoscaling and the pod of helm test.
func everything(t *testing.T) string {
	t.Helper()
	text, err := render(t, "--values", deployDir+"/helm/variants/autoscaling.yaml", "--set",
		"namespace.create=true,certManager.enabled=true,ingress.enabled=true,ingress.hosts[0].host=chat.example.com,"+
			"monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true")
	require.NoError(t, err, text)
	return text
}

func decode(t *testing.T, text string) *Objects {
	t.Helper()
	objects, err := Decode([]byte(text))
	require.NoError(t, err)
	return objects
}

// gather builds the programs and starts the trial installation.
func gather(t *testing.T) bed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	programs, err := Programs(ctx, t.TempDir())
	require.NoError(t, err)
	secrets, err := NewVault(t.TempDir())
	require.NoError(t, err)
	b := bed{trial: decode(t, manifest(t, "trial.yaml")), Facts: Facts{Programs: programs, Secrets: secrets, Scratch: t.TempDir}}
	b.running, err = Run(ctx, b.trial, b.Facts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.running.Stop()) })
	b.Answers = func(component, path string) int {
		status, _, err := b.running.Get(component, path, "")
		require.NoError(t, err)
		return status
	}
	b.Metrics = func(component string) map[string]bool {
		_, body, err := b.running.Get(component, "/metrics", b.token(t))
		require.NoError(t, err)
		names := map[string]bool{}
		for line := range strings.Lines(body) {
			if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
				name, _, _ := strings.Cut(rest, " ")
				names[name] = true
			}
		}
		return names
	}
	return b
}

func (b bed) token(t *testing.T) string {
	t.Helper()
	token, err := b.Secrets("runnel-admin", "token")
	require.NoError(t, err)
	return token
}

// testMetricsWantToken: the services require the token of the Secret that the manifests name.
func testMetricsWantToken(t *testing.T, b bed) {
	t.Helper()
	for _, component := range []string{gateway, delivery, history} {
		require.Equal(t, 401, b.Answers(component, "/metrics"))
		require.Contains(t, b.Metrics(component), "go_goroutines")
	}
	require.Contains(t, b.Metrics(gateway), "runnel_gateway_connections")
}

// testListeners: the programs listen on the addresses in their settings, and on no others.
func testListeners(t *testing.T, b bed) {
	t.Helper()
	for _, component := range []string{gateway, delivery, history} {
		listening, err := listeners(b.running.Processes[component].PID())
		require.NoError(t, err)
		var told []string
		for _, address := range b.running.Addresses[component] {
			told = append(told, address)
		}
		require.ElementsMatch(t, told, listening, component)
		require.Len(t, told, len(b.trial.workload(component).Container().Ports))
	}
}

// helm is the pinned helm. It may be missing on a developer's machine: then the checked-in manifests are checked, but not
// the chart's variants.
func helm(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../../.tools/bin/helm")
	require.NoError(t, err)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		require.Empty(t, os.Getenv("CI"), "helm is not built: make tools")
		t.Skip("helm is not built (make tools): the chart is not rendered")
	}
	return path
}

// render renders an installation of the chart with helm.
func render(t *testing.T, args ...string) (string, error) {
	t.Helper()
	args = append([]string{"template", "runnel", deployDir + "/helm/runnel", "--namespace", "runnel"}, args...)
	output, err := exec.CommandContext(t.Context(), helm(t), args...).CombinedOutput()
	return string(output), err
}

// trialValues are the arguments for the trial installation.
var trialValues = []string{"--values", deployDir + "/helm/values-trial.yaml"}

// variants are ways in which operators want the chart. Those that take more than a line are in deploy/helm/variants.
var variants = map[string][]string{
	"defaults":             nil,
	"another name":         {"--set", "fullnameOverride=chat,nameOverride=chat"},
	"external NATS":        {"--set", "nats.enabled=false,nats.url=tls://nats.example.com:4222"},
	"five NATS servers":    {"--set", "nats.replicas=5"},
	"a slow drain":         {"--set", "gateway.drainSeconds=300,delivery.stopSeconds=60,history.stopSeconds=20,nats.lameDuckSeconds=120"},
	"more gateways":        {"--set", "gateway.replicas=7"},
	"TLS at the gateway":   {"--set", "gateway.clientTLSSecret=clients-tls"},
	"keys of an issuer":    {"--set", "auth.hmacSecret.name=,auth.jwksURL=https://issuer.example.com/jwks.json,auth.issuer=https://issuer.example.com,auth.audience=chat"},
	"a new secret":         {"--set", "auth.hmacSecret.name=new,auth.previousHmacSecret.name=runnel-auth"},
	"keys in a Secret":     {"--set", "auth.hmacSecret.name=,auth.jwksSecret.name=keys"},
	"traces":               {"--set", "telemetry.otlpEndpoint=http://collector.observability:4317,telemetry.logLevel=debug", "--set-json", "telemetry.sampleRatio=0.5"},
	"settings by name":     {"--set-string", "gateway.extraEnv.RUNNEL_GATEWAY_FRAME_RATE=100"},
	"settings of all":      {"--set-string", "gateway.extraEnv.RUNNEL_GATEWAY_MAX_CONNECTIONS=30000,delivery.extraEnv.RUNNEL_NATS_MAX_AGE=96h,history.extraEnv.RUNNEL_HISTORY_CONNECTIONS=7"},
	"origins":              {"--set", "gateway.allowedOrigins={https://a.example.com}"},
	"no policies":          {"--set", "networkPolicy.enabled=false,podDisruptionBudgets.enabled=false"},
	"less memory":          {"--set", "gateway.resources.limits.memory=700Mi,history.resources.limits.memory=300000000"},
	"plaintext":            {"--set", "rpc.tls.enabled=false,nats.tls.enabled=false,nats.auth.enabled=false"},
	"a fast disk":          {"--set", "nats.storage.className=fast"},
	"trial, two of each":   append(trialValues, "--set", "gateway.replicas=2,delivery.replicas=2,history.replicas=2"),
	"trial, namespace":     append(trialValues, "--set", "namespace.create=true"),
	"certificates, others": {"--set", "certManager.enabled=true,certManager.issuerRef.kind=ClusterIssuer,rpc.tls.secrets.gateway=gw-cert"},
	"monitored":            {"--set", "monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.serviceMonitor.labels.release=kps,monitoring.prometheusRule.labels.release=kps"},
}

// testVariants renders the chart in the ways that operators want it, and in those that it must refuse.
func testVariants(t *testing.T, b bed) {
	t.Helper()
	for name, args := range variants {
		t.Run(name, func(t *testing.T) {
			text, err := render(t, args...)
			require.NoError(t, err, text)
			require.Empty(t, b.inspect(decode(t, text)))
		})
	}
	for _, file := range variantFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := render(t, "--values", file)
			require.NoError(t, err, text)
			require.Empty(t, b.inspect(decode(t, text)))
		})
	}
	lint, err := exec.CommandContext(t.Context(), helm(t), "lint", "--strict", deployDir+"/helm/runnel").CombinedOutput()
	require.NoError(t, err, string(lint))
	for name, args := range map[string][]string{
		"additional properties 'replica' not allowed":                         {"--set", "gateway.replica=3"},
		"must know whose tokens":                                              {"--set", "auth.hmacSecret.name="},
		"ingress.hosts must name the host":                                    {"--set", "ingress.enabled=true"},
		"delivery.podLabels: the chart sets the label":                        {"--set", `delivery.podLabels.app\.kubernetes\.io/name=chat`},
		"commonLabels: the chart sets the label":                              {"--set", `commonLabels.app\.kubernetes\.io/component=chat`},
		"gateway.terminationGracePeriodSeconds is 30; a pod needs 45 to stop": {"--set", "gateway.terminationGracePeriodSeconds=30"},
		"nats.terminationGracePeriodSeconds is 40":                            {"--set", "nats.terminationGracePeriodSeconds=40"},
		"history.serviceAccount.name must name":                               {"--set", "history.serviceAccount.create=false"},
		"/gateway/image/digest":                                               {"--set", "gateway.image.digest=latest"},
		"/gateway/extraEnv":                                                   {"--set", "gateway.extraEnv.RUNNEL_GATEWAY_DRAIN.value=1s"},
		"nats.url must name a NATS cluster":                                   {"--set", "nats.enabled=false"},
		"/nats/url":                                                           {"--set", "nats.url=nats://user:password@a:4222"},
		"/nats/lameDuckSeconds":                                               {"--set", "nats.lameDuckSeconds=10"},
		"/networkPolicy/clientsFrom":                                          {"--set-json", "networkPolicy.clientsFrom=[]"},
		"/gateway/autoscaling":                                                {"--set", "gateway.autoscaling.scaleDownStabilizationSeconds=0"},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			text, err := render(t, args...)
			require.Error(t, err)
			require.Contains(t, text, name)
		})
	}
}

// TestManifestsAreFresh: the checked-in manifests are those that the chart renders now.
func TestManifestsAreFresh(t *testing.T) {
	helm(t)
	output, err := exec.CommandContext(t.Context(), "../../../scripts/manifests.sh", "check").CombinedOutput()
	require.NoError(t, err, string(output))
}
