#!/bin/sh
# What shimtrace costs, measured against the same without it in the same run: a
# call through the relay, the journal, a container's start, memory. ROUNDS is the
# number of containers of each kind.
set -eu
cd "$(dirname "$0")/.."
echo "== $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), $(uname -r), $(go version | cut -d' ' -f3)"
echo "== the shim binary and what it starts as"
stat -c '%n %s' bin/containerd-shim-traced-v2 bin/shimtrace-relay | awk '{printf "%s %.1f MB\n", $1, $2/1e6}'
echo "== calls: relayed against direct"
go test ./middleware -run '^$' -bench . -benchtime "${BENCHTIME:-2s}"
echo "== calls between processes: through the shim's relay, and through one that only copies, against direct"
go -C integration test ./memory -run '^$' -bench Calls -benchtime "${BENCHTIME:-2s}"
echo "== journal and spans"
go test ./internal/export/... -run '^$' -bench . -benchtime "${BENCHTIME:-1s}"
echo "== reading a journal of 64 MiB: the whole process, and its peak memory"
go test ./cmd/shimtrace -run '^$' -bench Reading -benchtime 5x
echo "== the agent's spans: socket to journal, and its parts"
go test ./internal/forwarder/... -run '^$' -bench . -benchtime "${BENCHTIME:-2s}" -cpu 1
echo "== the kernel's process events: reading them, on a host that makes as many processes as it can"
go test ./internal/procevents -run '^$' -bench . -benchtime 6x
echo "== a process's output out of a VM: with and without the relay of requests"
go -C integration/vmshim test . -run '^$' -bench Output -benchtime "${OUTPUTTIME:-20x}"
echo "== a runtime's spans, for the runtime: posted to us and to a Jaeger, which takes minutes to build the first time"
go -C integration run ./runtimetrace/bench
echo "== other programs' spans into the journal, beside the OpenTelemetry Collector, which takes a minute to build the first time"
go -C integration run ./otlpbench
echo "== containers: wrapped against bare"
go -C integration run ./bench -rounds "${ROUNDS:-40}"
echo "== idle pods, see make bench-idle for a hundred of them"
go -C integration run ./bench -idle "${PODS:-20}" -for "${IDLETIME:-30s}"
echo "== memory of a relay after a pod's start"
go -C integration test ./memory -count=1 -v -run RelayIdle | grep 'RSS'
echo "== memory of a hundred relays of containers that run, and of the inner shims beside them"
go -C integration test ./memory -run '^$' -bench Relays
