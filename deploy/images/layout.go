package main

import (
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// refName is the annotation that holds an image's name in a layout.
const refName = "org.opencontainers.image.ref.name"

// WriteLayout writes an OCI layout with one index of the images, one image for each platform. It replaces an existing
// layout. It returns the digest of the index, by which a registry addresses the images.
func WriteLayout(dir, reference string, images []v1.Image) (v1.Hash, error) {
	tag, err := name.NewTag(reference, name.StrictValidation)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("the name of an image: %w", err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, image := range images {
		config, err := image.ConfigFile()
		if err != nil {
			return v1.Hash{}, fmt.Errorf("read the configuration: %w", err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: config.Platform()}})
	}
	if err := os.RemoveAll(dir); err != nil {
		return v1.Hash{}, fmt.Errorf("remove the layout of before: %w", err)
	}
	written, err := layout.Write(dir, empty.Index)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("write a layout: %w", err)
	}
	if err := written.AppendIndex(index, layout.WithAnnotations(map[string]string{refName: tag.TagStr()})); err != nil {
		return v1.Hash{}, fmt.Errorf("write a layout: %w", err)
	}
	return index.Digest()
}

// WriteArchive writes an archive for `docker load`: one image with its name.
func WriteArchive(path, reference string, image v1.Image) error {
	tag, err := name.NewTag(reference, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("the name of an image: %w", err)
	}
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		return fmt.Errorf("write an archive: %w", err)
	}
	return nil
}
