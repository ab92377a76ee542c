package settings

import (
	"encoding"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// mask replaces a secret wherever settings are printed. Its length does not depend on the secret.
const mask = "********"

// passwordNamed finds a password that follows its name: in the query of a URL, or in a list of words.
var passwordNamed = regexp.MustCompile(`((?:^|[?&\s])\w*password=)[^&\s]*`)

// printConfig is the flag --print-config.
type printConfig bool

// AfterApply runs after all settings have their values.
func (p printConfig) AfterApply(ctx *kong.Context) error {
	if !p {
		return nil
	}
	out, err := effective(ctx.Flags())
	if err != nil {
		return err
	}
	if _, err := ctx.Stdout.Write(out); err != nil {
		return fmt.Errorf("printing the settings: %w", err)
	}
	ctx.Exit(0)
	return nil
}

// effective returns settings in the form of a settings file.
func effective(flags []*kong.Flag) ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, flag := range flags {
		if !isFileKey(flag) {
			continue
		}
		value, err := shown(flag)
		if err != nil {
			return nil, fmt.Errorf("printing --%s: %w", flag.Name, err)
		}
		node, path := root, strings.Split(flag.Name, ".")
		for _, section := range path[:len(path)-1] {
			node = child(node, section)
		}
		node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: path[len(path)-1]}, value)
	}
	if len(root.Content) == 0 {
		return nil, nil
	}
	out, err := yaml.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("printing the settings: %w", err)
	}
	return out, nil
}

// child returns the mapping of a section; it adds the mapping if needed.
func child(node *yaml.Node, name string) *yaml.Node {
	for i := 0; i < len(node.Content); i += 2 {
		if node.Content[i].Value == name {
			return node.Content[i+1]
		}
	}
	section := &yaml.Node{Kind: yaml.MappingNode}
	node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, section)
	return section
}

// shown returns a setting's value as YAML, without secrets.
func shown(flag *kong.Flag) (*yaml.Node, error) {
	var value any
	switch v := flag.Target.Interface().(type) {
	case time.Duration:
		value = v.String()
	case encoding.TextMarshaler:
		text, err := v.MarshalText()
		if err != nil {
			return nil, err
		}
		value = string(text)
	default:
		value = v
	}
	if flag.Tag.Has(secretTag) && !flag.Target.IsZero() {
		value = mask
	}
	node := &yaml.Node{}
	if err := node.Encode(value); err != nil {
		return nil, err
	}
	hidePasswords(node)
	return node, nil
}

func hidePasswords(node *yaml.Node) {
	if node.Kind == yaml.ScalarNode {
		addresses := strings.Split(node.Value, ",")
		for i, address := range addresses {
			addresses[i] = hideCredentials(address)
		}
		node.Value = passwordNamed.ReplaceAllString(strings.Join(addresses, ","), "${1}"+mask)
	}
	for _, content := range node.Content {
		hidePasswords(content)
	}
}

// hideCredentials masks the password in scheme://user:password@host. If there is only one word before the host, it masks
// the word, because for NATS it is a token. The scheme may be missing. Passwords are not always escaped correctly, so
// everything up to the last @ is masked, which may mask more than the password.
func hideCredentials(address string) string {
	begin := 0
	if scheme := strings.Index(address, "://"); scheme >= 0 {
		begin = scheme + len("://")
	}
	at := strings.LastIndexByte(address, '@')
	if at < begin {
		return address
	}
	user, _, password := strings.Cut(address[begin:at], ":")
	switch {
	case strings.ContainsAny(user, "/?# "):
		return address // the text before the @ is not a user
	case password:
		begin += len(user) + len(":")
	}
	return address[:begin] + mask + address[at:]
}
