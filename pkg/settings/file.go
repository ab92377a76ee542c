package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

const maxFileBytes = 1 << 20

// entry is one setting in a file. Its value is in the text form of a flag, so that a value means the same in a file and
// as a flag.
type entry struct {
	value string
	line  int
}

// readFile reads the settings in a file. It reports all errors of the file at once.
func readFile(path string, flags map[string]*kong.Flag) (map[string]entry, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()

	limited := &io.LimitedReader{R: file, N: maxFileBytes + 1}
	decoder := yaml.NewDecoder(limited)
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case limited.N <= 0:
		return nil, fmt.Errorf("is larger than %d bytes", maxFileBytes)
	case errors.Is(err, io.EOF): // the file is empty or has only comments
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	reading := &reading{flags: flags, entries: map[string]entry{}}
	reading.section("", document.Content[0])
	return reading.entries, errors.Join(reading.errs...)
}

// reading is the state of reading a settings file.
type reading struct {
	flags   map[string]*kong.Flag
	entries map[string]entry
	errs    []error
}

func (r *reading) failf(node *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("line %d: "+format, append([]any{node.Line}, args...)...))
}

// section reads the keys below prefix. prefix is empty or ends with a dot.
func (r *reading) section(prefix string, node *yaml.Node) {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // all keys of the section are commented out
	}
	if node.Kind != yaml.MappingNode {
		r.failf(node, "%s must be a mapping of keys to values", orWhole(strings.TrimSuffix(prefix, ".")))
		return
	}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := prefix + key.Value
		switch flag := r.flags[name]; {
		case key.Kind != yaml.ScalarNode:
			r.failf(key, "a key must be a name")
		case flag != nil:
			r.setting(flag, name, value)
		case r.isSection(name + "."):
			r.section(name+".", value)
		default:
			r.failf(key, "unknown key %q", name)
		}
	}
}

func (r *reading) isSection(prefix string) bool {
	for name := range r.flags {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func (r *reading) setting(flag *kong.Flag, name string, node *yaml.Node) {
	if first, twice := r.entries[name]; twice {
		r.failf(node, "%q is set already in line %d", name, first.line)
		return
	}
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		// A key without a value leaves the default in force.
	case node.Kind == yaml.ScalarNode:
		r.entries[name] = entry{node.Value, node.Line}
	case node.Kind == yaml.SequenceNode && flag.IsSlice():
		if list, ok := r.scalars(name, node); ok {
			r.entries[name] = entry{kong.JoinEscaped(list, flag.Tag.Sep), node.Line}
		}
	case node.Kind == yaml.MappingNode && flag.IsMap():
		if list, ok := r.scalars(name, node); ok {
			pairs := make([]string, 0, len(list)/2)
			for i := 0; i < len(list); i += 2 {
				pairs = append(pairs, list[i]+"="+list[i+1])
			}
			r.entries[name] = entry{kong.JoinEscaped(pairs, flag.Tag.MapSep), node.Line}
		}
	default:
		r.failf(node, "%q does not take %s", name, kindName(node.Kind))
	}
}

func (r *reading) scalars(name string, node *yaml.Node) ([]string, bool) {
	list := make([]string, 0, len(node.Content))
	for _, item := range node.Content {
		if item.Kind != yaml.ScalarNode {
			r.failf(item, "%q does not take %s inside", name, kindName(item.Kind))
			return nil, false
		}
		list = append(list, item.Value)
	}
	return list, true
}

func kindName(kind yaml.Kind) string {
	switch kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	case yaml.AliasNode:
		return "an alias"
	default:
		return "this"
	}
}

func orWhole(name string) string {
	if name == "" {
		return "the file"
	}
	return fmt.Sprintf("%q", name)
}
