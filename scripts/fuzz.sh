#!/usr/bin/env bash
# Runs every fuzz target of the workspace for FUZZTIME each, one after the other: a fuzzer uses all cores.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
source scripts/steps.sh

while IFS=: read -r file target; do
	directory=${file%/*}
	step "$target in $directory" go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-10s}" "./$directory"
done < <(find pkg proto services -name '*_test.go' -exec grep -HoE '^func Fuzz[A-Za-z0-9_]*' {} + | sed 's/:func /:/' | sort)
summary "make fuzz"
