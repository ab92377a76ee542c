package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
)

// A door is a value of the chart that is empty by default: with it an operator puts something into an object.

// variantFiles are sets of values that operators want. The test of the chart in a control plane renders them too.
func variantFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(deployDir + "/helm/variants/*.yaml")
	require.NoError(t, err)
	require.Greater(t, len(files), 10)
	return files
}

// TestEveryDoorOpens renders the chart with one door at a time: what an operator writes into it changes an object of the component.
// Every door stands in one of the variants, which other tests look into.
func TestEveryDoorOpens(t *testing.T) {
	helm(t)
	all, wrong := chartValues([]byte(read(t, filepath.Join(chartDir, "values.yaml"))), []byte(read(t, filepath.Join(chartDir, "values.schema.json"))))
	require.Empty(t, wrong)
	var doors []string
	for _, v := range all {
		if v.path == "ingress.enabled" {
			continue // open in every rendering below; TestFormerIngressValues closes it
		}
		if slices.Contains([]string{"{}", "[]", `""`, "null"}, v.fallback) {
			doors = append(doors, v.path)
		}
	}
	set, given := map[string]any{}, map[string]string{} // in files, and as arguments
	for _, file := range variantFiles(t) {
		var tree map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(read(t, file)), &tree))
		for _, door := range doors {
			if value, found := at(tree, strings.Split(door, ".")); found {
				set[door] = value
			}
		}
	}
	for _, args := range variants {
		for _, door := range doors {
			if arg := argument(args, door); arg != "" {
				given[door] = arg
			}
		}
	}

	// Some doors lead into what must be there first.
	base := []string{"--set", "ingress.enabled=true,ingress.hosts[0].host=chat.example.com,monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true"}
	before, err := render(t, base...)
	require.NoError(t, err, before)
	closed := make([]string, len(doors))
	var rendering errgroup.Group
	rendering.SetLimit(runtime.GOMAXPROCS(0))
	dir := t.TempDir()
	for i, door := range doors {
		value, inFile := set[door]
		if !inFile && given[door] == "" {
			closed[i] = door + " is in no variant"
			continue
		}
		rendering.Go(func() error {
			tree := value
			for _, name := range slices.Backward(strings.Split(door, ".")) {
				tree = map[string]any{name: tree}
			}
			text, err := yaml.Marshal(tree)
			if err != nil {
				return err
			}
			file := filepath.Join(dir, door)
			if err := os.WriteFile(file, text, 0o600); err != nil {
				return err
			}
			args := append([]string{"--values", file}, base...)
			if !inFile {
				args = append(slices.Clone(base), "--set", given[door])
			}
			before, component := before, strings.Split(door, ".")[0]
			if extra := needs[door]; extra != nil {
				args = append(args, extra...)
				before, _ = render(t, append(slices.Clone(base), extra...)...) // without nats.url there is nothing to compare with
				component = ""
			}
			after, err := render(t, args...)
			switch {
			case err != nil:
				closed[i] = door + ": " + after
			case !changes(before, after, component):
				closed[i] = door + " changes nothing"
			}
			return nil
		})
	}
	require.NoError(t, rendering.Wait())
	require.Empty(t, slices.DeleteFunc(closed, func(s string) bool { return s == "" }))
}

// needs are arguments without which a door has no effect.
var needs = map[string][]string{
	"ingress.path":         {"--set", "ingress.host=former.example.com"},
	"ingress.tlsSecret":    {"--set", "ingress.host=former.example.com"},
	"nats.url":             {"--set", "nats.enabled=false"},
	"networkPolicy.natsTo": {"--set", "nats.enabled=false,nats.url=nats://nats.example.com:4222"},
	"networkPolicy.otlpTo": {"--set", "telemetry.otlpEndpoint=http://collector:4317"},
}

// changes reports whether a document of a component differs between two renderings; other values than a component's concern all.
func changes(before, after, component string) bool {
	documents := strings.Split(before, "\n---\n")
	for document := range strings.SplitSeq(after, "\n---\n") {
		if slices.Contains(documents, document) {
			continue
		}
		if !slices.Contains([]string{gateway, delivery, history, natsName}, component) || strings.Contains(document, "app.kubernetes.io/component: "+component) {
			return true
		}
	}
	return false
}

// at finds a value in a tree of values.
func at(tree map[string]any, path []string) (any, bool) {
	value, found := tree[path[0]]
	if below, isMap := value.(map[string]any); isMap && len(path) > 1 {
		return at(below, path[1:])
	}
	return value, found && len(path) == 1
}

// argument is the part of a --set argument that sets a value or something in it.
func argument(args []string, door string) string {
	for _, arg := range args {
		for each := range strings.SplitSeq(arg, ",") {
			if strings.HasPrefix(each, door+"=") || strings.HasPrefix(each, door+".") {
				return each
			}
		}
	}
	return ""
}

// A proxy that is not there would let clients claim any address; one that is not counted would make all clients one address.
func TestProxiesAreCountedWithTheIngress(t *testing.T) {
	ingress := []string{"--set", "ingress.enabled=true,ingress.hosts[0].host=chat.example.com"}
	for want, args := range map[string][]string{
		"0": nil,
		"1": ingress,
		"2": append(slices.Clone(ingress), "--set", "gateway.trustedProxies=2"),
	} {
		text, err := render(t, args...)
		require.NoError(t, err, text)
		require.Contains(t, text, `{name: RUNNEL_GATEWAY_TRUSTED_PROXIES, value: "`+want+`"}`)
	}
}

// Values files of earlier charts name one host, and no Ingress was made only where enabled was false.
func TestFormerIngressValues(t *testing.T) {
	for name, test := range map[string]struct {
		values string
		wants  []string // rule after rule, then the certificates
	}{
		"a host alone":         {"ingress.host=chat.example.com", []string{"chat.example.com/v1/ws", "chat-example-com-tls chat.example.com"}},
		"all three":            {"ingress.host=chat.example.com,ingress.path=/chat,ingress.tlsSecret=cert", []string{"chat.example.com/chat", "cert chat.example.com"}},
		"plain HTTP":           {"ingress.host=chat.example.com,ingress.tlsSecret=", []string{"chat.example.com/v1/ws"}},
		"enabled":              {"ingress.enabled=true,ingress.host=chat.example.com,ingress.tlsSecret=", []string{"chat.example.com/v1/ws"}},
		"former and new hosts": {"ingress.host=a.example.com,ingress.tlsSecret=,ingress.hosts[0].host=b.example.com", []string{"a.example.com/v1/ws", "b.example.com/v1/ws"}},
		"switched off":         {"ingress.enabled=false,ingress.host=chat.example.com,ingress.tlsSecret=cert", nil},
		"no host":              {"ingress.path=/chat,ingress.tlsSecret=cert", nil},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := render(t, "--set", test.values)
			require.NoError(t, err, text)
			require.Equal(t, test.wants, ingressOf(t, text))
			require.Contains(t, text, fmt.Sprintf(`{name: RUNNEL_GATEWAY_TRUSTED_PROXIES, value: "%d"}`, min(len(test.wants), 1)))
		})
	}
}

// ingressOf lists the hosts with their paths, and then the certificates, of the Ingress in a rendering.
func ingressOf(t *testing.T, text string) []string {
	t.Helper()
	var found []string
	for _, ingress := range decode(t, text).Ingresses {
		for _, rule := range ingress.Spec.Rules {
			for _, path := range rule.HTTP.Paths {
				found = append(found, rule.Host+path.Path)
			}
		}
		for _, tls := range ingress.Spec.TLS {
			found = append(found, tls.SecretName+" "+strings.Join(tls.Hosts, " "))
		}
	}
	return found
}
