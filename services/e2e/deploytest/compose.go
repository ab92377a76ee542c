//nolint:tagliatelle // the names are those of compose files
package deploytest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"
)

// Compose is a compose file, with the fields that the checks use.
type Compose struct {
	Name     string                              `yaml:"name"`
	Service  any                                 `yaml:"x-service"`
	Services map[string]*ComposeService          `yaml:"services"`
	Volumes  map[string]any                      `yaml:"volumes"`
	Secrets  map[string]struct{ File string }    `yaml:"secrets"`
	Configs  map[string]struct{ Content string } `yaml:"configs"`
}

// ComposeService is one service of a compose file.
type ComposeService struct {
	Image       string   `yaml:"image"`
	Command     []string `yaml:"command"`
	Restart     string   `yaml:"restart"`
	User        string   `yaml:"user"`
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Init        bool     `yaml:"init"`
	Build       *struct {
		Context    string            `yaml:"context"`
		Dockerfile string            `yaml:"dockerfile"`
		Args       map[string]string `yaml:"args"`
	} `yaml:"build"`
	Environment map[string]string `yaml:"environment"`
	Secrets     []string          `yaml:"secrets"`
	Configs     []struct {
		Source string `yaml:"source"`
		Target string `yaml:"target"`
	} `yaml:"configs"`
	Ports           []string `yaml:"ports"`
	Volumes         []string `yaml:"volumes"`
	StopGracePeriod string   `yaml:"stop_grace_period"`
	Healthcheck     *struct {
		Test        []string `yaml:"test"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		Retries     int      `yaml:"retries"`
		StartPeriod string   `yaml:"start_period"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct{ Condition string } `yaml:"depends_on"`
}

// DecodeCompose reads a compose file strictly.
func DecodeCompose(text []byte) (*Compose, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	compose := &Compose{}
	if err := decoder.Decode(compose); err != nil {
		return nil, fmt.Errorf("read the compose file: %w", err)
	}
	return compose, nil
}

// InspectCompose compares the parts of a compose file with each other, and with the behaviour of the programs.
func InspectCompose(c *Compose, facts Facts) []error {
	var found []error
	failf := func(format string, args ...any) { found = append(found, fmt.Errorf(format, args...)) }
	listening := map[string]map[string]bool{}  // ports on which services listen, by service
	programs := map[string]map[string]string{} // settings by service
	for name, service := range c.Services {
		listening[name] = map[string]bool{}
		if service.Build == nil {
			listening[name]["5432"] = name == "postgres" // the postgres image listens on this port
			continue
		}
		program := facts.Programs[service.Build.Args["PROGRAM"]]
		if program == nil || service.Image != service.Build.Args["PROGRAM"]+":dev" {
			failf("%s builds %q as %s", name, service.Build.Args["PROGRAM"], service.Image)
			continue
		}
		for variable := range service.Environment {
			if !program.Variables[variable] {
				failf("%s sets %s, which %s does not know", name, variable, service.Build.Args["PROGRAM"])
			}
		}
		settings, err := c.settings(service, program, facts)
		if err != nil {
			failf("%s %w", name, err)
		}
		programs[name] = settings
		for setting, address := range settings {
			if host, port, err := net.SplitHostPort(address); err == nil && host == "" && strings.HasSuffix(setting, ".listen") {
				listening[name][port] = true
			}
		}
		for _, err := range service.hardened() {
			failf("%s %w", name, err)
		}
		stop, _ := time.ParseDuration(settings["gateway.drain"])
		if grace, err := time.ParseDuration(service.StopGracePeriod); err != nil || grace < stop+15*time.Second {
			failf("%s is killed after %q, and drains for %v", name, service.StopGracePeriod, stop)
		}
	}
	natsPort, err := c.natsPort(facts.Scratch())
	if err != nil {
		failf("%w", err)
	}
	if natsPort != "" && c.Services["nats"] != nil {
		listening["nats"][natsPort] = true
	}
	for name, settings := range programs {
		for _, setting := range []string{"history-address", "nats.url", "history.database"} {
			if address := settings[setting]; address != "" {
				if err := reaches(address, listening, c.Services[name]); err != nil {
					failf("%s of %s: %w", setting, name, err)
				}
			}
		}
	}
	for name, service := range c.Services {
		for _, err := range c.checkService(service, listening[name], facts) {
			failf("%s %w", name, err)
		}
	}
	return found
}

// settings returns the settings with which a service's program would run. Its secrets are files on this machine.
func (c *Compose) settings(service *ComposeService, program *Program, facts Facts) (map[string]string, error) {
	root := facts.Scratch()
	environment := map[string]string{}
	for name, value := range service.Environment {
		secret, isFile := strings.CutPrefix(value, "/run/secrets/")
		if !isFile {
			environment[name] = value
			continue
		}
		if !slices.Contains(service.Secrets, secret) {
			return nil, fmt.Errorf("reads the secret %s, which it does not get", secret)
		}
		content := "history:\n  database: postgres://runnel:password@postgres/runnel\n"
		if !strings.HasSuffix(c.Secrets[secret].File, ".yaml") {
			var err error
			if content, err = facts.Secrets("compose", secret); err != nil {
				return nil, err
			}
		}
		environment[name] = filepath.Join(root, secret)
		if err := os.WriteFile(environment[name], []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	return program.Settings(environment)
}

// hardened checks that a container has the least privileges.
func (s *ComposeService) hardened() []error {
	var errs []error
	for rule, kept := range map[string]bool{
		"runs as another user than the image's": s.User == "65532:65532",
		"can write to its root file system":     s.ReadOnly,
		"keeps capabilities":                    slices.Equal(s.CapDrop, []string{"ALL"}),
		"may gain privileges":                   slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}),
	} {
		if !kept {
			errs = append(errs, errors.New(rule))
		}
	}
	return errs
}

// checkService checks that all objects to which a service refers exist, and that it publishes no port to the network.
func (c *Compose) checkService(s *ComposeService, listening map[string]bool, facts Facts) []error {
	var errs []error
	failf := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, published := range s.Ports {
		host, port, _ := strings.Cut(published, ":")
		if _, inside, _ := strings.Cut(port, ":"); host != "127.0.0.1" || !listening[inside] {
			failf("publishes %s, which is open to others or leads nowhere", published)
		}
	}
	for _, secret := range s.Secrets {
		if _, there := c.Secrets[secret]; !there {
			failf("wants the secret %s, which is not there", secret)
		}
	}
	for _, volume := range s.Volumes {
		name, _, _ := strings.Cut(volume, ":")
		if _, there := c.Volumes[name]; !there {
			failf("mounts the volume %s, which is not there", name)
		}
	}
	for other, wait := range s.DependsOn {
		target := c.Services[other]
		if target == nil || wait.Condition != "service_healthy" || target.Healthcheck == nil {
			failf("waits for %s, which never becomes healthy", other)
		}
	}
	if s.Healthcheck == nil || len(s.Healthcheck.Test) < 2 || s.Healthcheck.Test[0] != "CMD" {
		failf("has no health check")
		return errs
	}
	for _, argument := range s.Healthcheck.Test {
		asked, err := url.Parse(argument)
		if err != nil || asked.Scheme != "http" {
			continue
		}
		component := gateway
		if s.Build == nil {
			component = natsName
		} else if asked.Port() != "9090" || !listening["9090"] {
			failf("asks for its health on port %s", asked.Port())
		}
		if status := facts.Answers(component, asked.Path); status != 200 {
			failf("asks %s for its health, which answers %d", asked.Path, status)
		}
	}
	return errs
}

// natsPort returns the client port of the NATS server, from its configuration as the real server parses it.
func (c *Compose) natsPort(dir string) (string, error) {
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(c.Configs["nats"].Content, "$$", "$")), 0o600); err != nil {
		return "", err
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		return "", fmt.Errorf("nats-server refuses its configuration: %w", err)
	}
	if !options.SyncAlways || options.NoJetStreamStrict || options.MaxPayload != 256<<10 || options.StoreDir != "/data" {
		return "", errors.New("the NATS server keeps nothing safe")
	}
	return strconv.Itoa(options.Port), nil
}

// reaches checks that an address leads to a service which listens there, and which is started before the service from,
// directly or indirectly.
func reaches(address string, listening map[string]map[string]bool, from *ComposeService) error {
	target, err := url.Parse(address)
	if err != nil {
		return err
	}
	host, port := target.Hostname(), target.Port()
	if target.Scheme == "dns" {
		host, port, err = net.SplitHostPort(strings.TrimPrefix(target.Path, "/"))
	}
	if target.Scheme == "postgres" && port == "" {
		port = "5432"
	}
	if err != nil || !listening[host][port] {
		return fmt.Errorf("nobody listens at %s", net.JoinHostPort(host, port))
	}
	if len(from.DependsOn) == 0 {
		return fmt.Errorf("does not wait for %s", host)
	}
	return nil
}
