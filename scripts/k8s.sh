#!/usr/bin/env bash
# Installs the chart into a real Kubernetes control plane and tries to break it. Arguments go to `go test`.
# The programs of the control plane are built from the Go modules that deploy/k8stest/go.mod pins, into .tools/k8s: that
# takes minutes once, and again when the pins or the Go version change. `go test` is built as they are, so that it finds
# their packages compiled.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/steps.sh
source scripts/steps.sh

module=deploy/k8stest
out=$PWD/.tools/k8s
go_version=$(go env GOVERSION)
# The workspace is switched off: Kubernetes pins hundreds of modules, and gets its own versions of them.
export GOWORK=off CGO_ENABLED=0

# program NAME PACKAGE builds one program, unless it is there and newer than the pins.
program() {
	local stamp=$out/.$1-$go_version version
	[[ -x $out/$1 && $stamp -nt $module/go.mod && $stamp -nt $module/go.sum ]] && return
	# Clients compare their version with the server's, which is a development build unless it is told.
	version=$(go -C "$module" list -m -f '{{.Version}}' k8s.io/kubernetes) || return
	printf 'building %s %s\n' "$1" "$(go -C "$module" list -f '{{.Module.Version}}' "$2")"
	go -C "$module" build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" -o "$out/$1" "$2" &&
		touch "$stamp"
}

# Each test ends by itself after five minutes at most; the limit of `go test`, which would leave the cluster running, is
# not to be reached.
tests() {
	(cd "$module" && ../../.tools/bin/gotestsum --format testname --format-hide-empty-pkg -- -trimpath -count=1 -timeout 60m "$@" ./...)
}

mkdir -p "$out"
step "helm and gotestsum" make --no-print-directory ".tools/bin/.k8s-$go_version" ".tools/bin/.test-$go_version"
step "kube-apiserver (minutes, the first time)" program kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
step "kube-controller-manager" program kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
step "kube-scheduler" program kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler
step "etcd" program etcd go.etcd.io/etcd/server/v3
step "kwok" program kwok sigs.k8s.io/kwok/cmd/kwok
if ((step_failed == 0)); then
	step "the chart in a cluster" tests "$@"
fi
summary "make test-k8s"
