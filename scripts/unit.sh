#!/usr/bin/env bash
# The tests of every module, with the race detector. Arguments go to `go test`.
set -euo pipefail
cd "$(dirname "$0")/.."

race=(-race)
cc=$(go env CC)
if ! command -v "${cc%% *}" >/dev/null; then
	# The race detector is linked by a C compiler; nothing else here needs one.
	if [[ ${CI:-} == true ]]; then
		echo "no C compiler ($cc): CI does not run tests without the race detector" >&2
		exit 1
	fi
	echo "no C compiler ($cc): running the tests WITHOUT the race detector; install gcc to have it" >&2
	race=()
fi

mapfile -t packages < <(go list -f '{{.Dir}}/...' -m)
exec .tools/bin/gotestsum --format pkgname --format-hide-empty-pkg -- "${race[@]}" -timeout 15m "$@" "${packages[@]}"
