#!/bin/bash
# Runs "go test" with the arguments on all packages of a module, whose directory is the
# first argument. One or two tests that fail run three times more, by themselves. If they
# pass, the run has not failed, and the tests are added to the file that UNSTABLE names,
# if any. A data race, a panic, a package that does not build or runs out of time fails it.
set -uo pipefail
go=${GO:-go} module=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
$go -C "$module" test "$@" ./... 2>&1 | tee "$log" && exit

! grep -qE '^(panic|fatal error): |WARNING: DATA RACE' "$log" || exit 1
# A line for each package that failed: its path, and a pattern of its failed tests.
failed=$(awk '
	/^--- FAIL: / { tests = tests "|" $3; n++ }
	/^(ok|FAIL)\t/ && tests { print $2, "^(" substr(tests, 2) ")$"; tests = ""; next }
	/^FAIL\t/ { n = 99 } # without a test that failed
	END { exit n < 1 || n > 2 }' "$log") || exit 1
while read -r package tests; do
	echo "=== again: $package $tests"
	$go -C "$module" test "$@" -count=3 -run "$tests" "$package" || exit 1
	echo "$package $tests" >>"${UNSTABLE:-/dev/null}"
done <<<"$failed"
