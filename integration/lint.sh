#!/bin/sh
# gofmt, go mod tidy, go vet, staticcheck and deadcode over all modules.
set -eu
cd "$(dirname "$0")/.."
modules=". integration integration/vmshim"
others="release deploy" # with large dependencies, and nothing that other modules use

unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || { echo "not gofmt-ed:"; echo "$unformatted"; exit 1; }

go build -o /dev/null honnef.co/go/tools/cmd/staticcheck
staticcheck=$(go tool -n staticcheck)
for module in $modules; do
	go -C "$module" mod tidy -diff || { echo "run: go -C $module mod tidy"; exit 1; }
	go -C "$module" vet ./...
	(cd "$module" && "$staticcheck" ./...)
done

for module in $others; do
	go -C "$module" mod tidy -diff || { echo "run: go -C $module mod tidy"; exit 1; }
	go -C "$module" vet ./...
done

# Functions that no program and no test reaches. A workspace shows deadcode all
# modules at once: some functions are there for another module only.
go build -o /dev/null golang.org/x/tools/cmd/deadcode
deadcode=$(go tool -n deadcode)
workspace=$(mktemp -d)
trap 'rm -r "$workspace"' EXIT
export GOWORK="$workspace/go.work"
# shellcheck disable=SC2086
go work init $modules 2>/dev/null
dead=$("$deadcode" -test $(for module in $modules; do echo "./$module/..."; done))
[ -z "$dead" ] || { echo "reached by no program and no test:"; echo "$dead"; exit 1; }
