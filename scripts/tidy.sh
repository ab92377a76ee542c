#!/usr/bin/env bash
# tidy.sh        runs `go mod tidy` in every module of the workspace
# tidy.sh check  fails where that would change something; changes nothing
# The modules under scripts/tools are left out: they hold nothing but a tool each, and buf's cannot be tidied, because
# some test dependency of its dependencies is not to be had from every proxy.
set -euo pipefail
cd "$(dirname "$0")/.."

flags=()
[[ ${1:-} == check ]] && flags=(-diff)

failed=0
for module in $(go list -f '{{.Dir}}' -m); do
	echo "go mod tidy ${flags[*]}: ${module#"$PWD"/}"
	(cd "$module" && go mod tidy "${flags[@]}") || failed=1
done
exit $failed
