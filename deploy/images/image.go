package main

import (
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec describes the content of an image.
type Spec struct {
	Program, Version, Revision string
	Created                    time.Time
	// Modified is true if the source differed from the commit.
	Modified bool
	Platform v1.Platform
}

// about describes each program in one line.
var about = map[string]string{
	"runnel":          "Runnel in one process, and what a person at a terminal uses with it",
	"runnel-gateway":  "Terminates client connections of Runnel",
	"runnel-delivery": "Puts Runnel's commands in order, has them committed, and sees them delivered",
	"runnel-history":  "Stores Runnel's conversations",
}

// Assemble makes an image of a program and the probe.
func Assemble(spec Spec, binary, probe string) (v1.Image, error) {
	own, err := binaries(spec.Program, binary, probe)
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: spec.Created}
	var addenda []mutate.Addendum
	for _, part := range []struct {
		comment string
		files   []file
	}{{"user and root certificates", system()}, {spec.Program, own}} {
		packed, err := layer(part.files, spec.Created)
		if err != nil {
			return nil, err
		}
		addenda = append(addenda, mutate.Addendum{
			Layer: packed, MediaType: types.OCILayer,
			History: v1.History{Created: created, CreatedBy: "deploy/images", Comment: part.comment},
		})
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, addenda...)
	if err != nil {
		return nil, fmt.Errorf("add layers: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = spec.Platform.OS, spec.Platform.Architecture, created
	config.Config = v1.Config{
		User:         fmt.Sprintf("%d:%d", userID, userID),
		Entrypoint:   []string{"/entrypoint"},
		Env:          []string{"PATH=/usr/bin"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}, "9000/tcp": {}, "9090/tcp": {}},
		Labels:       labels(spec),
		WorkingDir:   "/",
	}
	return mutate.ConfigFile(image, config)
}

func labels(spec Spec) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       spec.Program,
		"org.opencontainers.image.description": about[spec.Program],
		"org.opencontainers.image.version":     spec.Version,
		"org.opencontainers.image.revision":    spec.Revision,
		"org.opencontainers.image.created":     spec.Created.Format(time.RFC3339),
		"org.opencontainers.image.source":      "https://github.com/runnelhq/runnel",
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
}
