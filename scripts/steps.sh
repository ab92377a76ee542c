# shellcheck shell=bash
# Named steps with their duration, for the scripts beside this file that do more than one thing; source it.
# A step that fails does not stop the ones after it: one run shows everything that is wrong. `summary` ends the script
# with what happened, and fails if any step did. A function given as a step runs without `set -e`: join with &&.

step_lines=()
step_failed=0

# step NAME COMMAND...
step() {
	local name=$1 start=$SECONDS code=0 line
	shift
	printf '\n==> %s\n' "$name"
	"$@" || code=$?
	if ((code == 0)); then
		printf -v line 'ok      %5d s  %s' $((SECONDS - start)) "$name"
	else
		printf -v line 'FAILED  %5d s  %s (exit %d)' $((SECONDS - start)) "$name" "$code"
		step_failed=$((step_failed + 1))
	fi
	step_lines+=("$line")
	printf '%s\n' "$line"
}

# summary TITLE
summary() {
	printf '\n%s: %d steps in %d s, %d failed\n' "$1" "${#step_lines[@]}" "$SECONDS" "$step_failed"
	((${#step_lines[@]} == 0)) || printf '  %s\n' "${step_lines[@]}"
	((step_failed == 0))
}
