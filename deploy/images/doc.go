// Command images assembles the container images of Runnel's programs. An image contains static binaries, the root certificates and
// one user. The command needs no container engine and no base image. Equal sources give equal digests on all machines.
//
//	build.go    compiles the programs of the workspace
//	roots.go    the certificates of public authorities
//	files.go    the files of an image
//	image.go    Assemble: makes an image from files and a configuration
//	layout.go   writes images as OCI layouts and as archives for `docker load`
//	probe/      the health check of images that contain no other client
//
// deploy/Dockerfile builds images with the same content with a container engine.
package main
