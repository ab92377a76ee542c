package main

import (
	"archive/tar"
	"crypto/x509"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"
)

const workspace = "../.."

func spec(program string) Spec {
	return Spec{
		Program: program, Version: "1.2.3", Revision: "0123abcd", Created: time.Unix(1_700_000_000, 0).UTC(),
		Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
	}
}

// TestImages makes an image of every program as an operator gets it, reads it back from its layout, and runs what is in it.
func TestImages(t *testing.T) {
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			image, err := makeImage(t.Context(), workspace, spec(program))
			require.NoError(t, err)
			dir := filepath.Join(t.TempDir(), program)
			digest, err := WriteLayout(dir, "registry.example.com/"+program+":1.2.3", []v1.Image{image})
			require.NoError(t, err)
			image = read(t, dir, digest)

			checkConfig(t, image, program)
			size := int64(0)
			layers, err := image.Layers()
			require.NoError(t, err)
			require.Len(t, layers, 2)
			for _, layer := range layers {
				bytes, err := layer.Size()
				require.NoError(t, err)
				size += bytes
			}
			t.Logf("%s: %.1f MB compressed", program, float64(size)/1e6)
			require.Less(t, size, int64(30e6), "what a node has to fetch")

			root := t.TempDir()
			extract(t, image, root)
			checkFiles(t, root, program)
			if runtime.GOOS == "linux" {
				checkRuns(t, root, program)
			}
		})
	}
}

// read gives the image of a layout back, after checking every digest and size in it.
func read(t *testing.T, dir string, digest v1.Hash) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	require.NoError(t, err)
	require.NoError(t, validate.Index(index))
	outer, err := index.IndexManifest()
	require.NoError(t, err)
	require.Len(t, outer.Manifests, 1)
	require.Equal(t, digest, outer.Manifests[0].Digest)
	require.Equal(t, "1.2.3", outer.Manifests[0].Annotations[refName])
	inner, err := index.ImageIndex(digest)
	require.NoError(t, err)
	manifest, err := inner.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 1)
	require.Equal(t, "linux", manifest.Manifests[0].Platform.OS)
	require.Equal(t, runtime.GOARCH, manifest.Manifests[0].Platform.Architecture)
	image, err := inner.Image(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	return image
}

func checkConfig(t *testing.T, image v1.Image, program string) {
	t.Helper()
	config, err := image.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "65532:65532", config.Config.User)
	require.Equal(t, []string{"/entrypoint"}, config.Config.Entrypoint)
	require.Empty(t, config.Config.Cmd)
	require.Empty(t, config.Config.Volumes)
	require.Equal(t, "linux", config.OS)
	require.Equal(t, int64(1_700_000_000), config.Created.Unix())
	require.Equal(t, map[string]string{
		"org.opencontainers.image.title":       program,
		"org.opencontainers.image.description": about[program],
		"org.opencontainers.image.version":     "1.2.3",
		"org.opencontainers.image.revision":    "0123abcd",
		"org.opencontainers.image.created":     "2023-11-14T22:13:20Z",
		"org.opencontainers.image.source":      "https://github.com/runnelhq/runnel",
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}, config.Config.Labels)
	require.NotEmpty(t, about[program])
}

// extract unpacks all layers, and checks what is said of each file.
func extract(t *testing.T, image v1.Image, root string) {
	t.Helper()
	flat := mutate.Extract(image)
	defer func() { require.NoError(t, flat.Close()) }()
	archive := tar.NewReader(flat)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		path := filepath.Join(root, filepath.Clean("/"+header.Name))
		require.Zero(t, header.Uid+header.Gid, "%s is not root's", header.Name)
		require.True(t, header.Typeflag == tar.TypeSymlink || header.Mode&0o6022 == 0, "%s has the mode %o", header.Name, header.Mode)
		require.Equal(t, int64(1_700_000_000), header.ModTime.Unix(), header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			require.NoError(t, os.MkdirAll(path, 0o755))
		case tar.TypeSymlink:
			require.NoError(t, os.Symlink(header.Linkname, path))
		default:
			content, err := io.ReadAll(archive)
			require.NoError(t, err)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, content, os.FileMode(header.Mode)|0o200))
		}
	}
}

// checkFiles: there is what there must be, and nothing else.
func checkFiles(t *testing.T, root, program string) {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return err
	}))
	expected := []string{"/entrypoint", "/etc/group", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt", "/usr/bin/probe", "/usr/bin/" + program}
	require.ElementsMatch(t, expected, files)

	target, err := os.Readlink(filepath.Join(root, "entrypoint"))
	require.NoError(t, err)
	require.Equal(t, "/usr/bin/"+program, target)
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	require.NoError(t, err)
	require.Regexp(t, `^runnel:x:65532:65532:[^:]*:/:/sbin/nologin\n$`, string(passwd))
	certificates, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	require.NoError(t, err)
	require.True(t, x509.NewCertPool().AppendCertsFromPEM(certificates))
	require.Greater(t, strings.Count(string(certificates), "BEGIN CERTIFICATE"), 100)
	for _, name := range []string{program, "probe"} {
		binary, err := elf.Open(filepath.Join(root, "usr/bin", name))
		require.NoError(t, err)
		defer func() { _ = binary.Close() }()
		for _, segment := range binary.Progs {
			require.NotEqual(t, elf.PT_INTERP, segment.Type, "%s wants a dynamic linker, and there is none", name)
		}
	}
}

// checkRuns starts what lies in the image, as the user it says where this test may do that.
func checkRuns(t *testing.T, root, program string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(root, "usr/bin", program), "--help")
	command.Env = []string{}
	help, err := command.CombinedOutput()
	require.NoError(t, err, string(help))
	require.Contains(t, string(help), "Usage: "+program)
	version, err := exec.CommandContext(t.Context(), filepath.Join(root, "usr/bin", program), "--version").Output()
	require.NoError(t, err)
	require.Contains(t, string(version), program+" 1.2.3, commit 0123abcd, 2023-11-14T22:13:20Z, go")
}

// TestReproducible: built again elsewhere, an image is the same to the last bit; another content is another digest.
func TestReproducible(t *testing.T) {
	digestOf := func(spec Spec) v1.Hash {
		image, err := makeImage(t.Context(), workspace, spec)
		require.NoError(t, err)
		digest, err := WriteLayout(t.TempDir(), "registry.example.com/runnel-history:1.2.3", []v1.Image{image})
		require.NoError(t, err)
		return digest
	}
	first := digestOf(spec("runnel-history"))
	// Elsewhere: other directories, and nothing of the user's; only the caches stay, for time.
	t.Setenv("GOCACHE", goEnv(t, "GOCACHE"))
	t.Setenv("GOPATH", goEnv(t, "GOPATH"))
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	require.Equal(t, first, digestOf(spec("runnel-history")))
	changed := spec("runnel-history")
	changed.Version = "1.2.4"
	require.NotEqual(t, first, digestOf(changed))
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	value, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(value))
}

// TestArchive: what `docker load` gets has the name and the configuration.
func TestArchive(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(binary, []byte("program"), 0o600))
	image, err := Assemble(spec("runnel-gateway"), binary, binary)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, WriteArchive(path, "registry.example.com/runnel-gateway:1.2.3", image))
	loaded, err := tarball.ImageFromPath(path, nil)
	require.NoError(t, err)
	require.NoError(t, validate.Image(loaded))
	checkConfig(t, loaded, "runnel-gateway")
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
	require.NoError(t, err)
	require.Equal(t, []string{"registry.example.com/runnel-gateway:1.2.3"}, manifest[0].RepoTags)
}

// TestSeveralPlatforms: one index leads to an image for each.
func TestSeveralPlatforms(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(binary, []byte("program"), 0o600))
	platforms, err := parsePlatforms("linux/amd64,linux/arm64")
	require.NoError(t, err)
	var images []v1.Image
	for _, platform := range platforms {
		s := spec("runnel-gateway")
		s.Platform = platform
		image, err := Assemble(s, binary, binary)
		require.NoError(t, err)
		images = append(images, image)
	}
	dir := t.TempDir()
	digest, err := WriteLayout(dir, "registry.example.com/runnel-gateway:1.2.3", images)
	require.NoError(t, err)
	index, err := layout.ImageIndexFromPath(dir)
	require.NoError(t, err)
	require.NoError(t, validate.Index(index))
	inner, err := index.ImageIndex(digest)
	require.NoError(t, err)
	manifest, err := inner.IndexManifest()
	require.NoError(t, err)
	var architectures []string
	for _, each := range manifest.Manifests {
		architectures = append(architectures, each.Platform.Architecture)
	}
	require.Equal(t, []string{"amd64", "arm64"}, architectures)
	for _, wrong := range []string{"windows/amd64", "linux", "linux/arm/v7", ","} {
		_, err := parsePlatforms(wrong)
		require.Error(t, err, wrong)
	}
}

func TestRunRefuses(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), []string{"--out", t.TempDir()}, io.Discard), "--version is required")
	require.ErrorContains(t, run(t.Context(), []string{"--out", t.TempDir(), "--workspace", workspace, "--version", "1", "runnel-nothing"}, io.Discard), "0 packages are called so")
	require.ErrorContains(t, run(t.Context(), []string{"--version", "1", "--platform", "plan9/386"}, io.Discard), "not of the form")
}

// TestDockerfile: no engine here can run it, so it is compared with what is known to work: the same flags, user, entrypoint and files.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	require.NoError(t, checkDockerfile(string(text)))
	for finding, edit := range map[string][2]string{
		"flags":      {"-trimpath", "-a"},
		"USER":       {"USER 65532:65532", "USER root"},
		"ENTRYPOINT": {`ENTRYPOINT ["/entrypoint"]`, `ENTRYPOINT ["/runnel"]`},
		"scratch":    {"FROM scratch", "FROM alpine"},
		"group":      {">/image/etc/group", ">/dev/null"},
		"Go":         {"GO_VERSION=1.26", "GO_VERSION=1.20"},
	} {
		require.Contains(t, string(text), edit[0])
		require.ErrorContains(t, checkDockerfile(strings.ReplaceAll(string(text), edit[0], edit[1])), finding)
	}
}

func checkDockerfile(text string) error {
	last := text[strings.LastIndex(text, "\nFROM "):]
	var errs []error
	must := func(kept bool, what string) {
		if !kept {
			errs = append(errs, errors.New(what))
		}
	}
	must(strings.HasPrefix(last, "\nFROM scratch\n"), "the last stage does not begin from scratch")
	must(strings.Contains(last, "\nUSER 65532:65532\n"), "USER is not that of the images")
	must(strings.Contains(last, "\nENTRYPOINT [\"/entrypoint\"]\n"), "ENTRYPOINT is not that of the images")
	must(strings.Contains(text, "-trimpath -ldflags='"+linkFlags+"'") && strings.Contains(text, "-trimpath -ldflags=\""+linkFlags+" $STAMP\"") && slices.Contains(buildFlags, "-trimpath") &&
		strings.Contains(text, "GOFLAGS=-buildvcs=false") && strings.Contains(text, "CGO_ENABLED=0"), "the flags are not those of the images")
	for _, f := range system() {
		must(strings.Contains(text, "/image/"+f.path) || strings.Contains(text, " /image/"+filepath.Dir(f.path)+"/ "), f.path+" is missing")
	}
	wanted, err := os.ReadFile("../../go.work")
	if err != nil {
		return err
	}
	version := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(string(wanted))
	must(version != nil && strings.Contains(text, "GO_VERSION="+version[1]+"."), "Go is not the version of the workspace")
	return errors.Join(errs...)
}
