#!/usr/bin/env bash
# Everything a change has to pass, as CI runs it: every step even if one fails, then a summary.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
source scripts/steps.sh

run() { make --no-print-directory "$@"; }

step "tools (the first build takes minutes)" run tools
step "generated code is fresh" run generate-check
step "go.mod files are tidy" run tidy-check
step "manifests follow from the chart" run manifests-check
step "vet, with and without planted bugs" run vet
step "lint" run lint
step "tests with the race detector" run test-unit
step "container images" run test-images
step "the benchmark works (figures mean nothing)" run bench ARGS="--smoke"
step "short torture run" run torture-short
step "planted bugs turn the torture run red" run torture-prove
summary "make test"
