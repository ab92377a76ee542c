#!/usr/bin/env bash
# images.sh          assembles an OCI image of each program into bin/images, named after the version of the Helm chart
# images.sh test     tests the images and the tool that makes them
# Other arguments go to the tool: images.sh --platform linux/amd64,linux/arm64 --archives runnel-gateway
set -euo pipefail
cd "$(dirname "$0")/.."

# A module outside of the workspace: what it needs is nothing for the services.
export GOWORK=off
if [[ ${1:-} == test ]]; then
	shift
	exec go -C deploy/images test -timeout 20m "$@" ./...
fi
go -C deploy/images build -trimpath -o ../../.tools/bin/images .
version=$(sed -n 's/^appVersion: *//p' deploy/helm/runnel/Chart.yaml)
exec .tools/bin/images --version "$version" "$@"
