// Command images assembles the container images of Runnel's programs: static binaries, the root certificates, one user, and nothing
// else. It needs no container engine and no base image, and the same sources give the same digest on every machine.
//
//	build.go    programs from the workspace
//	roots.go    the certificates of public authorities
//	files.go    what lies in an image
//	image.go    Assemble: files and configuration → image
//	layout.go   images → OCI layouts and archives that `docker load` takes
//	probe/      asks a service for its health, for where nothing else in the image can
//
// deploy/Dockerfile makes images of the same shape with a container engine.
package main
