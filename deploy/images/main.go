package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// programs are the programs that have an image.
var programs = []string{"runnel", "runnel-gateway", "runnel-delivery", "runnel-history"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, printed io.Writer) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	out := flags.String("out", "bin/images", "directory for an OCI layout of each program")
	workspace := flags.String("workspace", ".", "directory with go.work")
	version := flags.String("version", "", "version that the images say and are tagged with (required)")
	registry := flags.String("registry", "ghcr.io/runnelhq", "where the images are named after")
	platforms := flags.String("platform", "", "platforms separated by commas, such as linux/amd64,linux/arm64; this machine's without it")
	archives := flags.Bool("archives", false, "also write PROGRAM.tar for `docker load`, of the first platform")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *version == "" {
		return errors.New("--version is required: what is in an image must have a name")
	}
	chosen := programs
	if flags.NArg() > 0 {
		chosen = flags.Args()
	}
	targets, err := parsePlatforms(*platforms)
	if err != nil {
		return err
	}
	revision, created, err := revision(ctx, *workspace)
	if err != nil {
		return err
	}
	changes, err := exec.CommandContext(ctx, "git", "-C", *workspace, "status", "--porcelain", "--untracked-files=no").Output() //nolint:gosec // the caller chooses the workspace
	if err != nil {
		return fmt.Errorf("ask git for changes: %w", err)
	}
	for _, program := range chosen {
		var images []v1.Image
		for _, target := range targets {
			image, err := makeImage(ctx, *workspace, Spec{Program: program, Version: *version, Revision: revision, Created: created, Modified: len(changes) > 0, Platform: target})
			if err != nil {
				return fmt.Errorf("%s for %s: %w", program, target, err)
			}
			images = append(images, image)
		}
		name := *registry + "/" + program + ":" + *version
		digest, err := WriteLayout(filepath.Join(*out, program), name, images)
		if err != nil {
			return err
		}
		if *archives {
			if err := WriteArchive(filepath.Join(*out, program+".tar"), name, images[0]); err != nil {
				return err
			}
		}
		fmt.Fprintf(printed, "%s@%s\n", name, digest)
	}
	return nil
}

// makeImage builds a program and puts it into an image.
func makeImage(ctx context.Context, workspace string, spec Spec) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "runnel-images-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, probe, err := Build(ctx, workspace, dir, spec)
	if err != nil {
		return nil, err
	}
	return Assemble(spec, binary, probe)
}

// revision returns the commit that is built and its time. SOURCE_DATE_EPOCH replaces the time if it is set.
func revision(ctx context.Context, workspace string) (commit string, at time.Time, err error) {
	output, err := exec.CommandContext(ctx, "git", "-C", workspace, "log", "-1", "--format=%H %ct").Output() //nolint:gosec // the caller chooses the workspace
	if err != nil {
		return "", time.Time{}, fmt.Errorf("ask git what is built: %w", err)
	}
	commit, seconds, _ := strings.Cut(strings.TrimSpace(string(output)), " ")
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds = epoch
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("the time of the build: %w", err)
	}
	return commit, time.Unix(unix, 0).UTC(), nil
}
