package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// userID is the user id and group id of the images. It is not root, and equals the id in deploy/Dockerfile and the
// manifests.
const userID = 65532

// file is one file of an image. A file with a target is a symbolic link. All files belong to root and are writable by
// nobody.
type file struct {
	path    string
	content []byte
	program bool
	target  string
}

// system returns the system files that a Go program may need besides its binary.
func system() []file {
	return []file{
		{path: "etc/group", content: []byte(fmt.Sprintf("runnel:x:%d:\n", userID))},
		{path: "etc/passwd", content: []byte(fmt.Sprintf("runnel:x:%d:%d:Runnel:/:/sbin/nologin\n", userID, userID))},
		{path: "etc/ssl/certs/ca-certificates.crt", content: roots()},
	}
}

// binaries returns the program, the probe, and a link to the program. The link has the same name in all images.
func binaries(program, binary, probe string) ([]file, error) {
	var files []file
	for name, path := range map[string]string{program: binary, "probe": probe} {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read a program: %w", err)
		}
		files = append(files, file{path: "usr/bin/" + name, content: content, program: true})
	}
	return append(files, file{path: "entrypoint", target: "/usr/bin/" + program}), nil
}

// layer packs files and their directories in a fixed order and with the same time.
func layer(files []file, at time.Time) (v1.Layer, error) {
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	made := map[string]bool{".": true}
	for _, f := range files {
		for _, parent := range parents(f.path) {
			if made[parent] {
				continue
			}
			made[parent] = true
			if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: parent + "/", Mode: 0o755, ModTime: at}); err != nil {
				return nil, fmt.Errorf("pack %s: %w", parent, err)
			}
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: 0o444, Size: int64(len(f.content)), ModTime: at}
		switch {
		case f.target != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.target, 0o777
		case f.program:
			header.Mode = 0o555
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.path, err)
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.path, err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("pack a layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil })
}

// parents returns the directories above a path, the highest first.
func parents(file string) []string {
	var above []string
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		above = append(above, dir)
	}
	slices.Reverse(above)
	return above
}
