#!/usr/bin/env bash
# stamp.sh: the linker flags that tell a program its version, commit and date, for go build -ldflags. The version is that of the Helm
# chart, the date that of the commit, so that a commit always gives the same binary. Without git only the version is stamped.
set -euo pipefail
cd "$(dirname "$0")/.."
package=github.com/runnelhq/runnel/pkg/buildinfo
printf -- '-X %s.version=%s' "$package" "$(sed -n 's/^appVersion: *//p' deploy/helm/runnel/Chart.yaml)"
if commit=$(git rev-parse HEAD 2>/dev/null); then
	printf -- ' -X %s.commit=%s' "$package" "$commit"
	printf -- ' -X %s.date=%s' "$package" "$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)"
	if [[ -n $(git status --porcelain --untracked-files=no) ]]; then
		printf -- ' -X %s.modified=yes' "$package"
	fi
fi
