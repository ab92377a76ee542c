#!/usr/bin/env bash
# tidy.sh        runs `go mod tidy` in every module of the workspace
# tidy.sh check  fails where that would change something; changes nothing
# The modules under scripts/tools are left out: they hold nothing but a tool each, and buf's cannot be tidied, because
# not every test dependency of its dependencies can be downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."

# untidy DIR prints what tidy would change in the module at DIR, cut short: go.sum alone can be hundreds of lines.
untidy() {
	local diff
	diff=$(go -C "$1" mod tidy -diff) && return 1
	printf '%s\n' "$diff" | sed -n '1,30p;31s/.*/…/p'
}

failed=0
for module in $(go list -f '{{.Dir}}' -m); do
	if [[ ${1:-} != check ]]; then
		echo "go mod tidy: ${module#"$PWD"/}"
		go -C "$module" mod tidy
	elif untidy "$module"; then
		# shellcheck disable=SC2016
		echo "${module#"$PWD"/} is not tidy, or could not be checked (see above): run \`make tidy\` and commit the result" >&2
		failed=1
	fi
done
exit $failed
