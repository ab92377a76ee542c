package deploytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// Program is one of Runnel's binaries.
type Program struct {
	Path string
	// Variables are the environment variables in the program's --help.
	Variables map[string]bool
}

// Programs builds all deployed binaries and reads their help. It returns them by name.
func Programs(ctx context.Context, dir string) (map[string]*Program, error) {
	built, err := launch.Build(ctx, dir, "", launch.Gateway, launch.Delivery, launch.History)
	if err != nil {
		return nil, err
	}
	programs := map[string]*Program{}
	for name, path := range built {
		help, err := helpOf(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("ask %s for its settings: %w", name, err)
		}
		programs[name] = &Program{Path: path, Variables: variables(help)}
	}
	return programs, nil
}

// helpOf returns a program's help for running as a service. In a program with several commands, that is the help of
// serve.
func helpOf(ctx context.Context, path string) ([]byte, error) {
	help, err := exec.CommandContext(ctx, path, "--help").Output()
	if err != nil || !bytes.Contains(help, []byte("\n  serve ")) {
		return help, err
	}
	return exec.CommandContext(ctx, path, "serve", "--help").Output()
}

var variable = regexp.MustCompile(`\$([A-Z][A-Z0-9_]+)`)

// variables parses the output of --help. Secrets are listed at its end; each secret can also come from a file.
func variables(help []byte) map[string]bool {
	known := map[string]bool{}
	settings, secrets, _ := bytes.Cut(help, []byte("\nSecrets, "))
	for _, match := range variable.FindAllSubmatch(settings, -1) {
		known[string(match[1])] = true
	}
	for _, match := range variable.FindAllSubmatch(secrets, -1) {
		known[string(match[1])] = true
		known[string(match[1])+"_FILE"] = true
	}
	return known
}

// Settings returns the settings with which the program would run, by name, such as gateway.listen. The program gets only
// these arguments and this environment. If the program refuses its settings, Settings returns an error.
func (p *Program) Settings(environment map[string]string, args ...string) (map[string]string, error) {
	command := exec.Command(p.Path, append(args, "--print-config")...)
	for name, value := range environment {
		command.Env = append(command.Env, name+"="+value)
	}
	var printed, refused bytes.Buffer
	command.Stdout, command.Stderr = &printed, &refused
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("refuses its settings: %s", bytes.TrimSpace(refused.Bytes()))
	}
	var tree map[string]any
	if err := yaml.Unmarshal(printed.Bytes(), &tree); err != nil {
		return nil, fmt.Errorf("prints settings that are no YAML: %w", err)
	}
	settings := map[string]string{}
	flatten("", tree, settings)
	return settings, nil
}

func flatten(prefix string, tree map[string]any, into map[string]string) {
	for name, value := range tree {
		if section, ok := value.(map[string]any); ok {
			flatten(prefix+name+".", section, into)
		} else {
			into[prefix+name] = fmt.Sprint(value)
		}
	}
}

// Environment returns the environment that the kubelet would give to the container of a workload's first pod. The mounted
// Secrets are written below root, and variables with their file names are adapted.
func (w *Workload) Environment(root string, secrets Secrets) (map[string]string, error) {
	var errs []error
	environment := map[string]string{}
	for _, env := range w.Container().Env {
		value, err := w.value(env, environment, secrets)
		errs = append(errs, err)
		environment[env.Name] = value
	}
	files, err := w.files(secrets)
	errs = append(errs, err)
	for path, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	for name, value := range environment {
		if strings.HasPrefix(value, "/") {
			environment[name] = filepath.Join(root, value)
		}
	}
	return environment, errors.Join(errs...)
}

var reference = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_]*)\)`)

// value returns the value of one variable. before contains the preceding variables, to which it may refer.
func (w *Workload) value(env corev1.EnvVar, before map[string]string, secrets Secrets) (string, error) {
	source := env.ValueFrom
	switch {
	case source == nil:
		var err error
		return reference.ReplaceAllStringFunc(env.Value, func(ref string) string {
			value, known := before[ref[2:len(ref)-1]]
			if !known {
				err = fmt.Errorf("%s refers to %s, which is not set before it", env.Name, ref)
			}
			return value
		}), err
	case source.SecretKeyRef != nil:
		return secrets(source.SecretKeyRef.Name, source.SecretKeyRef.Key)
	case source.FieldRef != nil && source.FieldRef.FieldPath == "metadata.name":
		return w.Name + "-0", nil
	case source.ResourceFieldRef != nil && source.ResourceFieldRef.Resource == "limits.memory":
		limit, set := w.Container().Resources.Limits[corev1.ResourceMemory]
		if !set {
			return "", fmt.Errorf("%s asks for a memory limit that is not set", env.Name)
		}
		divisor := source.ResourceFieldRef.Divisor
		if divisor.IsZero() {
			divisor = resource.MustParse("1")
		}
		return strconv.FormatInt((limit.Value()+divisor.Value()-1)/divisor.Value(), 10), nil
	default:
		return "", fmt.Errorf("%s comes from a source that no check here knows", env.Name)
	}
}

// files returns the files of mounted Secrets in the container, by path.
func (w *Workload) files(secrets Secrets) (map[string]string, error) {
	var errs []error
	files := map[string]string{}
	for _, mount := range w.Container().VolumeMounts {
		i := slices.IndexFunc(w.Pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		if i < 0 || w.Pod.Spec.Volumes[i].Secret == nil {
			continue
		}
		source := w.Pod.Spec.Volumes[i].Secret
		paths := map[string]string{}
		for _, item := range source.Items {
			paths[item.Key] = item.Path
		}
		if len(source.Items) == 0 {
			for _, key := range tlsKeys {
				paths[key] = key
			}
		}
		for _, key := range slices.Sorted(maps.Keys(paths)) {
			content, err := secrets(source.SecretName, key)
			errs = append(errs, err)
			files[filepath.Join(mount.MountPath, paths[key])] = content
		}
	}
	return files, errors.Join(errs...)
}
