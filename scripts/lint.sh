#!/usr/bin/env bash
# The static checks: the schema, its compatibility with the last release, formatting, and golangci-lint over every
# module of the workspace.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
source scripts/steps.sh

tools=$PWD/.tools/bin
mapfile -t modules < <(go list -f '{{.Dir}}' -m)

breaking() {
	if [[ ! -s proto/released.binpb ]]; then
		# shellcheck disable=SC2016
		echo 'proto/released.binpb is missing: there is no released schema to compare with; write it with `make release-schema`' >&2
		return 1
	fi
	(cd proto && "$tools/buf" breaking --against released.binpb)
}

formatted() {
	local files
	files=$("$tools/gofumpt" -l "${modules[@]}") && [[ -z $files ]] && return
	# shellcheck disable=SC2016
	printf 'not formatted, run `make fmt`:\n%s\n' "$files" >&2
	return 1
}

step "buf lint" "$tools/buf" lint proto
step "buf format" "$tools/buf" format -d --exit-code proto
step "the schema breaks nothing that was released" breaking
step "gofumpt" formatted
step "golangci-lint" "$tools/golangci-lint" run "${modules[@]/%//...}"
summary "make lint"
