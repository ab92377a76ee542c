#!/usr/bin/env bash
# generate.sh        writes the Go code of proto/ beside the .proto files, the codecs of package frame, and the reference of
#                    package protocol
# generate.sh check  generates into a directory of its own and fails if the tree differs; changes nothing
set -euo pipefail
cd "$(dirname "$0")/../proto"
buf=../.tools/bin/buf
frame=../pkg/frame
test_schema=$frame/internal/frametest
protocol=../pkg/protocol

# buf gives up on a plugin that takes long to answer. They run through `go tool`, whose first call compiles: do that here.
for plugin in protoc-gen-go protoc-gen-go-grpc protoc-gen-go-vtproto; do
	go tool -n "$plugin" >/dev/null
done

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh"/{proto,test,frame,protocol}
"$buf" generate -o "$fresh/proto"
"$buf" generate "$test_schema" -o "$fresh/test"

# framegen DIR ARGS... runs the generator of package frame on the schema in DIR.
framegen() {
	"$buf" build "$1" -o "$fresh/schema.binpb"
	go -C .. run ./pkg/frame/internal/framegen -descriptors "$fresh/schema.binpb" -out "$fresh/frame" "${@:2}"
}
framegen . -strict runnel.client.v1.ClientFrame -lenient runnel.client.v1.ServerFrame
framegen "$test_schema" -strict runnel.frametest.v1.Frame -name 'frametest_%s_gen_test.go'

stale=0
# follow FRESH TREE PATTERN... makes the files of TREE those of FRESH, or says which are not.
follow() {
	local fresh=$1 tree=$2 file name
	shift 2
	for file in $( (cd "$tree" && find . "$@" && cd "$fresh" && find . "$@") | sort -u); do
		cmp -s "$fresh/$file" "$tree/$file" && continue
		stale=1
		name=$(realpath --no-symlinks --relative-to .. "$tree/$file")
		if [[ $mode == check ]]; then
			echo "stale: $name"
		elif [[ -e $fresh/$file ]]; then
			cp "$fresh/$file" "$tree/$file" # only what differs, so that nothing is rebuilt without need
			echo "wrote $name"
		else
			rm "$tree/$file"
			echo "removed $name: nothing leads to it any more"
		fi
	done
}
mode=${1:-}
follow "$fresh/proto" . -name '*.pb.go'
follow "$fresh/test" "$test_schema" -name '*.pb.go'
follow "$fresh/frame" "$frame" -maxdepth 1 -name '*_gen*.go'

# The tables are Go code that uses the code above, so they come after it.
go -C .. run ./pkg/protocol/internal/protocolgen -out "$fresh/protocol"
follow "$fresh/protocol" "$protocol" -maxdepth 1 '(' -name protocol.json -o -name README.md ')'

if [[ $mode == check ]] && ((stale)); then
	# shellcheck disable=SC2016
	echo 'the generated files do not follow from the .proto files and tables: run `make generate` and commit the result' >&2
	exit 1
fi
