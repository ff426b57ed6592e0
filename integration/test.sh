#!/bin/bash
# All tests, part by part, with how far it is and how long each took. It goes on after a
# part that fails, and fails at the end. With arguments: only the parts with these names.
# Tests that fail once and pass when they run again are named at the end, too.
set -uo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
# A program with the race detector sleeps a second before it ends, and tests run hundreds.
export GORACE=${GORACE:-atexit_sleep_ms=10}

names=(packages journals tools guests integration kata release cluster)
declare -A what=(
	[packages]="the packages, with the race detector"
	[journals]="hostile journals, whose memory the race detector would hide"
	[tools]="building shimtrace, and getting containerd, runc, nerdctl, crictl"
	[guests]="getting the parts of guests; tests that lack one say so"
	[integration]="against real containerd, runc, nerdctl, crictl, collectors"
	[kata]="a shim shaped like Kata's, and its VMs"
	[release]="archives and packages: the same bytes twice"
	[cluster]="the chart, against Kubernetes' types, and the plugin of kubectl"
)
packages() { integration/again.sh . -race; }
journals() { $go test -run TestHostileJournals ./cmd/shimtrace; }
tools() { make -s build && $go -C integration run ./tools; }
guests() { $go -C integration run ./vm/parts || true; }
integration() { integration/again.sh integration -race -count=1 -timeout 15m; }
kata() { integration/again.sh integration/vmshim -race -count=1 -timeout 10m; }
release() { $go -C release test -count=1 -timeout 10m ./...; }
cluster() { $go -C deploy test -count=1 -timeout 10m ./...; }

[ $# = 0 ] || names=("$@")
n=${#names[@]} i=0 failed=() report=()
UNSTABLE=$(mktemp)
export UNSTABLE
trap 'rm -f "$UNSTABLE"' EXIT
begun=$SECONDS
for name in "${names[@]}"; do
	i=$((i + 1))
	[ -n "${what[$name]:-}" ] || { echo "there is no part $name" >&2; exit 2; }
	echo "=== [$i/$n] $name: ${what[$name]}"
	at=$SECONDS result=ok
	$name || { result=FAILED; failed+=("$name"); }
	report+=("$(printf '%8s %5d s  %s' "$result" $((SECONDS - at)) "$name")")
	echo "=== [$i/$n] $name: $result, $((SECONDS - at)) s; $((SECONDS - begun)) s in all"
done
echo
printf '%s\n' "${report[@]}"
[ ! -s "$UNSTABLE" ] || sed 's/^/unstable: failed, then passed three times: /' "$UNSTABLE"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
