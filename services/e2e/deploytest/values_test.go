package deploytest

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the chart's README.md anew")

const chartDir = deployDir + "/helm/runnel"

// chartValue is a value of the chart that has no values below it.
type chartValue struct {
	path, fallback, comment string
	node                    *yaml.Node
}

// schema is the part of a JSON schema that says which values there are.
type schema struct {
	Ref        string             `json:"$ref"`
	Properties map[string]*schema `json:"properties"`
	Defs       map[string]*schema `json:"definitions"`
}

func (s *schema) resolve(root *schema) *schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		return root.Defs[name]
	}
	return s
}

// chartValues reads values.yaml beside values.schema.json, and reports where they disagree and what has no comment.
func chartValues(valuesText, schemaText []byte) (all []chartValue, wrong []string) {
	var document yaml.Node
	var root schema
	if err := yaml.Unmarshal(valuesText, &document); err != nil {
		return nil, []string{err.Error()}
	}
	if err := json.Unmarshal(schemaText, &root); err != nil {
		return nil, []string{err.Error()}
	}
	var walk func(prefix string, node *yaml.Node, s *schema)
	walk = func(prefix string, node *yaml.Node, s *schema) {
		seen := map[string]bool{"global": prefix == ""} // Helm's own
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			path := prefix + key.Value
			seen[key.Value] = true
			below := s.Properties[key.Value]
			if below == nil {
				wrong = append(wrong, path+" is not in the schema")
				continue
			}
			if below = below.resolve(&root); below.Properties != nil {
				walk(path+".", value, below)
				continue
			}
			comment := strings.Join(strings.Fields(strings.ReplaceAll("\n"+key.HeadComment+value.LineComment, "\n#", " ")), " ")
			if comment == "" {
				wrong = append(wrong, path+" has no comment")
			}
			all = append(all, chartValue{path, inline(value), comment, value})
		}
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			if !seen[name] {
				wrong = append(wrong, prefix+name+" is in the schema, and not in values.yaml")
			}
		}
	}
	walk("", document.Content[0], &root)
	return all, wrong
}

// inline writes a default in one line.
func inline(node *yaml.Node) string {
	var value any
	if node.Decode(&value) != nil {
		return node.Value
	}
	text, err := json.Marshal(value)
	if err != nil {
		return node.Value
	}
	return string(text)
}

// Every value of the chart has a comment, stands in the schema, and in the table of the chart's README.
func TestValuesAreDocumented(t *testing.T) {
	text := read(t, filepath.Join(chartDir, "values.yaml"))
	schemaText := read(t, filepath.Join(chartDir, "values.schema.json"))
	all, wrong := chartValues([]byte(text), []byte(schemaText))
	require.Empty(t, wrong)
	require.Greater(t, len(all), 150)

	var table strings.Builder
	table.WriteString(`# The Helm chart of Runnel

[deploy/README.md](../../README.md) says how to install it. [variants](../variants) has examples of most values; a test renders each
of them. This table is made from values.yaml by ` + "`go test ./services/e2e/deploytest -run TestValuesAreDocumented -update`" + `.

| value | default | meaning |
|---|---|---|
`)
	escape := strings.NewReplacer("|", `\|`, "<", `\<`)
	for _, v := range all {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", v.path, escape.Replace(v.fallback), escape.Replace(v.comment))
	}
	file := filepath.Join(chartDir, "README.md")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(table.String()), 0o644))
	}
	require.Equal(t, table.String(), read(t, file), "run the test with -update")

	for finding, broken := range map[string]string{
		"gateway.drainRate has no comment":                                 strings.Replace(text, "  # Most clients a second that a gateway that stops sends elsewhere.\n", "", 1),
		"gateway.drainRates is not in the schema":                          strings.Replace(text, "\n  drainRate:", "\n  drainRates:", 1),
		"nats.storage.size is in the schema, and not in values.yaml":       strings.Replace(text, "    size: 10Gi\n", "", 1),
		"delivery.extraVolumes is in the schema, and not in values.yaml":   strings.Replace(text, "\ndelivery:", "\ndelivery:\n  x: 1\nother:", 1),
		"history.databaseSecret.key is in the schema, and not in values.y": strings.Replace(text, "    key: url\n", "", 1),
	} {
		_, wrong := chartValues([]byte(broken), []byte(schemaText))
		require.Contains(t, strings.Join(wrong, "\n"), finding)
	}
}
