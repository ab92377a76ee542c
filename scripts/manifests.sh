#!/usr/bin/env bash
# manifests.sh        renders the Helm chart into deploy/manifests, after copying into the chart what it shares with others:
#                     the alert rules and the users of NATS
# manifests.sh check  renders into a directory of its own and fails if the tree differs; changes nothing
set -euo pipefail
cd "$(dirname "$0")/.."
helm=$PWD/.tools/bin/helm

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh/deploy/helm" "$fresh/deploy/manifests"

# A chart reads only files of its own. Tests of the rules stay where they are.
cp -R deploy/helm/runnel "$fresh/deploy/helm/"
cp deploy/nats/users.conf "$fresh/deploy/helm/runnel/files/users.conf"
rm -rf "$fresh/deploy/helm/runnel/files/alerts"
mkdir -p "$fresh/deploy/helm/runnel/files/alerts"
for rules in deploy/alerts/*.yaml deploy/alerts/*.yml; do
	[[ -e $rules && $rules != *test* ]] || continue
	cp "$rules" "$fresh/deploy/helm/runnel/files/alerts/"
done

# render FILE PURPOSE ARGS...: what `helm template` makes of the chart in a namespace runnel.
render() {
	local file=$1 purpose=$2
	shift 2
	{
		printf '# %s\n# Rendered from deploy/helm by scripts/manifests.sh; change the chart, not this file. With Helm:\n' "$purpose"
		printf '#   helm template runnel deploy/helm/runnel --namespace runnel %s\n' "$*"
		"$helm" template runnel "$fresh/deploy/helm/runnel" --namespace runnel --skip-tests "$@" | sed -E 's/[[:space:]]+$//' | cat -s
	} >"$fresh/deploy/manifests/$file"
}

render runnel.yaml 'A production installation with the default values; its Secrets must exist before (deploy/README.md).' \
	--set namespace.create=true
render certificates.yaml 'The certificates that runnel.yaml wants, made by cert-manager from the Issuers runnel-ca and runnel-nats-ca.' \
	--set certManager.enabled=true --show-only templates/certificates.yaml
render ingress.yaml 'The way in for clients. Write your host and the Secret with its certificate, and set RUNNEL_GATEWAY_TRUSTED_PROXIES in runnel.yaml to 1.' \
	--set 'ingress.enabled=true,ingress.hosts[0].host=chat.example.com,ingress.tls[0].secretName=chat-example-com-tls,ingress.tls[0].hosts[0]=chat.example.com' \
	--show-only templates/ingress.yaml
render monitoring.yaml 'What the Prometheus operator scrapes and alerts on; its CRDs must be there.' \
	--set monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true --show-only templates/monitoring.yaml
render trial.yaml 'For a first look, without certificates. Never with real conversations.' \
	--values deploy/helm/values-trial.yaml --set namespace.create=true

stale=0
while read -r file; do
	cmp -s "$fresh/$file" "$file" && continue
	stale=1
	if [[ ${1:-} == check ]]; then
		echo "stale: $file"
	elif [[ -e $fresh/$file ]]; then
		mkdir -p "$(dirname "$file")"
		cp "$fresh/$file" "$file"
		echo "wrote $file"
	else
		rm "$file"
		echo "removed $file: nothing leads to it any more"
	fi
done < <( (find deploy/manifests deploy/helm/runnel/files/alerts deploy/helm/runnel/files/users.conf -type f 2>/dev/null || true
	cd "$fresh" && find deploy/manifests deploy/helm/runnel/files/alerts deploy/helm/runnel/files/users.conf -type f) | sort -u)

if [[ ${1:-} == check ]] && ((stale)); then
	# shellcheck disable=SC2016
	echo 'the manifests do not follow from the chart: run `make manifests` and commit the result' >&2
	exit 1
fi
