#!/usr/bin/env bash
# tool.sh DIR STAMP: builds the tools that DIR's go.mod pins into .tools/bin and touches STAMP.
# The workspace is switched off: each tool gets exactly the versions its own module names, and the modules of the
# workspace none of the tools'.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
start=$SECONDS
printf 'building the tools of %s into .tools/bin (the first time takes a minute or two)\n' "$1"
mkdir -p "$root/.tools/bin"
GOWORK=off GOBIN="$root/.tools/bin" go -C "$root/$1" install -trimpath tool
touch "$root/$2"
printf 'built the tools of %s in %d s\n' "$1" $((SECONDS - start))
