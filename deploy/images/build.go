package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// buildFlags keep machine-dependent data out of a binary: source directories and the build id.
var buildFlags = []string{"-trimpath", "-buildvcs=false"}

// linkFlags keep machine-dependent data out of a binary, as buildFlags do.
const linkFlags = "-s -w -buildid="

// stamped is the package of the variables that --version prints. Their values follow from the commit, as all content of
// an image does.
const stamped = "github.com/runnelhq/runnel/pkg/buildinfo"

// stamp returns the linker's flags for a program.
func (s Spec) stamp() string {
	set := func(name, value string) string { return " -X " + stamped + "." + name + "=" + value }
	flags := linkFlags + set("version", s.Version) + set("commit", s.Revision) + set("date", s.Created.Format(time.RFC3339))
	if s.Modified {
		flags += set("modified", "yes")
	}
	return flags
}

// Build compiles the program of an image and the probe into dir.
func Build(ctx context.Context, workspace, dir string, spec Spec) (binary, probe string, err error) {
	program := spec.Program
	workspace, err = filepath.Abs(workspace)
	if err != nil {
		return "", "", err
	}
	packages, err := filepath.Glob(filepath.Join(workspace, "services", "*", "cmd", program))
	if err != nil || len(packages) != 1 {
		return "", "", fmt.Errorf("find %s: %d packages are called so", program, len(packages))
	}
	binary, probe = filepath.Join(dir, program), filepath.Join(dir, "probe")
	if err := compile(ctx, workspace, filepath.Join(workspace, "go.work"), packages[0], binary, spec.stamp(), spec.Platform); err != nil {
		return "", "", err
	}
	return binary, probe, compile(ctx, filepath.Join(workspace, "deploy", "images"), "off", "./probe", probe, linkFlags, spec.Platform)
}

// compile builds a package in a directory with the go command. workspace is the value of GOWORK: a file, or off.
func compile(ctx context.Context, dir, workspace, pkg, output, link string, platform v1.Platform) error {
	command := exec.CommandContext(ctx, "go", append(append([]string{"build"}, buildFlags...), "-ldflags="+link, "-o", output, pkg)...) //nolint:gosec // pkg is a package of the workspace
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK="+workspace, "GOFLAGS=", "GOOS="+platform.OS, "GOARCH="+platform.Architecture)
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, bytes.TrimSpace(text))
	}
	return nil
}

// parsePlatforms parses a list such as linux/amd64,linux/arm64.
func parsePlatforms(list string) ([]v1.Platform, error) {
	if list == "" {
		return []v1.Platform{{OS: "linux", Architecture: runtime.GOARCH}}, nil
	}
	var platforms []v1.Platform
	for name := range strings.SplitSeq(list, ",") {
		platform, err := v1.ParsePlatform(name)
		if err != nil || platform.OS != "linux" || platform.Architecture == "" || platform.Variant != "" {
			return nil, fmt.Errorf("the platform %q is not of the form linux/amd64", name)
		}
		platforms = append(platforms, *platform)
	}
	return platforms, nil
}
