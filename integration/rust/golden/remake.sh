#!/bin/sh
# Remakes the golden frames and every file of expected values in
# internal/forwarder/agent/testdata from the crates. Needs cargo and gzip.
#
#   integration/rust/golden/remake.sh            all of it
#   integration/rust/golden/remake.sh expected   the expected values only
#
# Frames differ from run to run in the order of their attributes (the crate's
# map has none); expected values do not differ.
set -eu
cd "$(dirname "$0")"
data=../../../internal/forwarder/agent/testdata
cargo build --release --locked --quiet
golden=target/release/golden

raw=$(mktemp) made=$(mktemp)
trap 'rm -f "$raw" "$made"' EXIT

if [ "${1:-}" != expected ]; then
	for encoding in bincode json; do
		"$golden" frames "$encoding" >"$made"
		gzip -9n <"$made" >"$data/golden-$encoding.frames.gz"
	done
fi

for frames in "$data"/*.frames.gz; do
	gzip -dc "$frames" >"$raw"
	"$golden" expect "$raw" >"$made"
	gzip -9n <"$made" >"${frames%.frames.gz}.expected.gz"
done
for encoding in bincode json; do
	gzip -dc "$data/golden-$encoding.frames.gz" >"$raw"
	"$golden" expect "$raw" all >"$made"
	gzip -9n <"$made" >"$data/golden-$encoding.expected-all.gz"
done
