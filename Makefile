GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION)
BIN := bin

# Tests that also hold with relays being killed under them: wrapped as bare, relayed as direct.
KILLED := 'TestRelayedAsDirect|TestSameAsBare|TestInnerShimIsGivenTheSame|TestReusedIDs|TestManyAtOnce|TestRacingStartsShareARelay|TestExitWhileContainerdIsAway'

.PHONY: build deps tools tools-vm test test-unit test-integration test-faults soak-faults test-vm lint fuzz soak bench demo demo-vm install clean

build: ## the shim and the operator's tool, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/ ./cmd/...

deps: ## the Debian packages that tests and demo need
	./integration/deps.sh

tools: ## the real containerd, runc, nerdctl, crictl and nginx that tests and demo run
	$(GO) -C integration run ./tools

tools-vm: ## the kernel and the VSOCK of the guests that tests boot
	$(GO) -C integration run ./vm/parts

test: deps test-unit test-integration ## everything

test-unit: ## the packages, with the race detector
	$(GO) test -race ./...
	$(GO) test -run TestHostileJournals ./cmd/shimtrace # memory, which -race hides

test-integration: build tools ## against real daemons and in guests, as root
	-$(GO) -C integration run ./vm/parts # tests that lack a part say so
	$(GO) -C integration test -race -count=1 -timeout 15m ./...
	$(GO) -C integration/vmshim test -race -count=1 -timeout 10m ./...

test-faults: build tools ## faults of every kind with containers running, as root; writes docs/reliability.md with SHIMTRACE_WRITE_RELIABILITY=1
	SHIMTRACE_FAULTS=all $(GO) -C integration test -count=1 -timeout 20m ./faults
	SHIMTRACE_FAULTS=all $(GO) -C integration/vmshim test -count=1 -timeout 10m -run Faults ./...
	SHIMTRACE_KILL=300ms $(GO) -C integration test -count=1 -timeout 10m -run $(KILLED) ./traced

soak-faults: build tools ## KILLS (default 10000) processes of shimtrace killed under load
	SHIMTRACE_FAULTS=$(or $(KILLS),10000) $(GO) -C integration test -count=1 -timeout 6h -v -run TestKills ./faults

test-vm: deps tools-vm ## only what runs in guests, those in an emulated host too
	SHIMTRACE_NESTED=1 $(GO) -C integration test -count=1 -timeout 15m ./vm/...
	$(GO) -C integration/vmshim test -count=1 -timeout 5m -run Guest ./...

lint: ## gofmt, go mod tidy, go vet, staticcheck, deadcode
	./integration/lint.sh

fuzz: ## every fuzz target for FUZZTIME (default 10s)
	./integration/fuzz.sh

soak: ## SOAK (default 100000) requests to the agent, on one processor and on two, byte by byte
	SHIMTRACE_SOAK=$(or $(SOAK),100000) $(GO) test ./internal/shim/kata -count=1 -timeout 60m -v -run TestSoakOfRequests

bench: build tools ## relayed against direct: latency, start time, memory
	./integration/bench.sh

demo: ## a container and a pod, traced, in a private containerd: the machine's own, or Debian's
	$(GO) -C integration run ./demo

demo-vm: deps tools tools-vm ## a container with an agent in a real VM, as one trace
	$(GO) -C integration/vmshim run ./demo

install: build ## the binaries and a link per shim found, into /usr/local/bin
	$(BIN)/shimtrace install

clean:
	rm -rf $(BIN)
