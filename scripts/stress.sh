#!/usr/bin/env bash
# The tests with the race detector, TIMES=5 times, while every processor is busy: what rests on the speed of the machine fails.
# Two more rounds have small and large socket buffers, in a network namespace of their own, so that nothing else on the machine
# is changed; where such a namespace is not permitted, that is said. Arguments are packages, as directories; without any, all
# modules are tested. TESTFLAGS goes to `go test`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/steps.sh

times=${TIMES:-5}
packages=("$@")
if ((${#packages[@]} == 0)); then
	mapfile -t packages < <(go list -f '{{.Dir}}/...' -m)
fi

load=()
for _ in $(seq "$(getconf _NPROCESSORS_ONLN)"); do
	(while :; do :; done) &
	load+=($!)
done
trap 'kill "${load[@]}" 2>/dev/null || true' EXIT

# shellcheck disable=SC2206 # flags are words
run=(.tools/bin/gotestsum --format pkgname --format-hide-empty-pkg -- -race -count=1 -timeout 60m ${TESTFLAGS:-} "${packages[@]}")

# within SIZES COMMAND... runs a command in a namespace whose TCP sockets have buffers of SIZES: least, default, most.
# Root needs no user namespace for that. In one, tests could not give PostgreSQL its directory.
within() {
	local sizes=$1 user=()
	shift
	((EUID == 0)) || user=(--map-root-user)
	# shellcheck disable=SC2016 # the inner shell expands them
	unshare ${user[@]+"${user[@]}"} --net bash -euc '
		ip link set lo up
		sysctl -qw "net.ipv4.tcp_rmem=$1" "net.ipv4.tcp_wmem=$1"
		shift
		exec "$@"' within "$sizes" "$@"
}

for round in $(seq "$times"); do
	step "round $round" "${run[@]}"
done
if within '4096 4096 4096' true 2>/dev/null; then
	step "small socket buffers" within '4096 4096 4096' "${run[@]}"
	step "large socket buffers" within '4096 8388608 33554432' "${run[@]}"
	summary stress
else
	printf '\nNOT DONE: the rounds with small and large socket buffers; they need unshare, ip and sysctl of Linux, and leave to use them\n'
	summary "stress, without the rounds of socket buffers"
fi
