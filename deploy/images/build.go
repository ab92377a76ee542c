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

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// buildFlags leave out of a binary what differs between machines: directories, and an id that follows from them.
var buildFlags = []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="}

// Build compiles a program of the workspace, and the probe, into dir.
func Build(ctx context.Context, workspace, dir, program string, platform v1.Platform) (binary, probe string, err error) {
	workspace, err = filepath.Abs(workspace)
	if err != nil {
		return "", "", err
	}
	packages, err := filepath.Glob(filepath.Join(workspace, "services", "*", "cmd", program))
	if err != nil || len(packages) != 1 {
		return "", "", fmt.Errorf("find %s: %d packages are called so", program, len(packages))
	}
	binary, probe = filepath.Join(dir, program), filepath.Join(dir, "probe")
	if err := compile(ctx, workspace, filepath.Join(workspace, "go.work"), packages[0], binary, platform); err != nil {
		return "", "", err
	}
	return binary, probe, compile(ctx, filepath.Join(workspace, "deploy", "images"), "off", "./probe", probe, platform)
}

// compile runs the go command in a directory, with a workspace or without.
func compile(ctx context.Context, dir, workspace, pkg, output string, platform v1.Platform) error {
	command := exec.CommandContext(ctx, "go", append(append([]string{"build"}, buildFlags...), "-o", output, pkg)...) //nolint:gosec // the program is one of the workspace
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK="+workspace, "GOFLAGS=", "GOOS="+platform.OS, "GOARCH="+platform.Architecture)
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, bytes.TrimSpace(text))
	}
	return nil
}

// parsePlatforms reads linux/amd64,linux/arm64.
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
