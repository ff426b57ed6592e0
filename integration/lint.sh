#!/bin/sh
# gofmt, go vet and staticcheck over all modules.
set -eu
cd "$(dirname "$0")/.."
unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || { echo "not gofmt-ed:"; echo "$unformatted"; exit 1; }
go build -o /dev/null honnef.co/go/tools/cmd/staticcheck
for module in . integration integration/vmshim; do
	go -C "$module" vet ./...
	staticcheck=$(go tool -n staticcheck)
	(cd "$module" && "$staticcheck" ./...)
done
