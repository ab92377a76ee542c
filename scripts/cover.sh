#!/usr/bin/env bash
# What the tests of the workspace cover, each package by the tests of all: .tools/cover.html and the total.
# Generated code and e2e, which is itself a test, do not count.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .tools
mapfile -t packages < <(go list -f '{{.Dir}}/...' -m)
go test -coverpkg=github.com/runnelhq/runnel/... -coverprofile=.tools/cover.all "${packages[@]}"
grep -vE '\.pb\.go:|/services/e2e/' .tools/cover.all >.tools/cover.out
go tool cover -html=.tools/cover.out -o .tools/cover.html
go tool cover -func=.tools/cover.out | tail -n 1
echo "by line: .tools/cover.html"
