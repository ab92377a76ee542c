#!/usr/bin/env bash
# generate.sh        writes the Go code of proto/ beside the .proto files
# generate.sh check  generates into a directory of its own and fails if the tree differs; changes nothing
set -euo pipefail
cd "$(dirname "$0")/../proto"
tree=$PWD

# buf gives up on a plugin that takes long to answer. They run through `go tool`, whose first call compiles: do that here.
for plugin in protoc-gen-go protoc-gen-go-grpc protoc-gen-go-vtproto; do
	go tool -n "$plugin" >/dev/null
done

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
../.tools/bin/buf generate -o "$fresh"

stale=0
for file in $( (find . -name '*.pb.go' && cd "$fresh" && find . -name '*.pb.go') | sort -u); do
	cmp -s "$fresh/$file" "$tree/$file" && continue
	stale=1
	if [[ ${1:-} == check ]]; then
		echo "stale: proto/${file#./}"
	elif [[ -e $fresh/$file ]]; then
		cp "$fresh/$file" "$tree/$file" # only what differs, so that nothing is rebuilt without need
		echo "wrote proto/${file#./}"
	else
		rm "$tree/$file"
		echo "removed proto/${file#./}: no .proto leads to it any more"
	fi
done

if [[ ${1:-} == check ]] && ((stale)); then
	# shellcheck disable=SC2016
	echo 'the generated code does not follow from the .proto files: run `make generate` and commit the result' >&2
	exit 1
fi
