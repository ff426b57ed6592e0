#!/bin/sh
# Runs every fuzz target for FUZZTIME each, a duration or a number of executions
# ("10000000x"), or those alone whose name contains FUZZ. Minimizing an input may
# take no more than FUZZMINIMIZE: Go spends a minute on each by default, and
# executes next to nothing meanwhile. A target that has executed fewer than FUZZFLOOR
# inputs has not been fuzzed, which is a failure. What is found is kept: new inputs
# in Go's cache (go env GOCACHE), failing ones in the package's testdata/fuzz.
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=
for file in $(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		case $target in *"${FUZZ:-}"*) ;; *) continue ;; esac
		pkg=$(dirname "$file")
		echo "== $pkg $target"
		# Not a pipe into tee: the status of go test counts.
		if go test "$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-10s}" -fuzzminimizetime "${FUZZMINIMIZE:-10x}" >"$log" 2>&1; then
			grep '^fuzz: elapsed' "$log" | tail -n 1
			execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
			[ "${execs:-0}" -ge "${FUZZFLOOR:-2000}" ] && continue
			echo "only ${execs:-0} executions of ${FUZZFLOOR:-2000}"
		else
			cat "$log"
		fi
		failed="$failed $pkg:$target"
	done
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
