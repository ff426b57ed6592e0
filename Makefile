GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION)
BIN := bin

# Tests that also pass while relays are killed: wrapped equals bare, relayed equals direct.
KILLED := 'TestRelayedAsDirect|TestSameAsBare|TestInnerShimIsGivenTheSame|TestReusedIDs|TestManyAtOnce|TestRacingStartsShareARelay|TestExitWhileContainerdIsAway'

.PHONY: release test-release build deps tools tools-vm test test-unit test-integration test-faults soak-faults test-backends test-causes test-vm lint fuzz soak bench bench-idle demo demo-vm picture install clean

build: ## build the shim, the relay and the operator's tool into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/ ./cmd/...

deps: ## install the Debian packages that tests and demos need
	./integration/deps.sh

tools: ## get the real containerd, runc, nerdctl, crictl and nginx for tests and demos
	$(GO) -C integration run ./tools

tools-vm: ## get the kernel and the VSOCK device of the tests' guests
	$(GO) -C integration run ./vm/parts

test: deps ## run all tests, part by part, and say how far it is: test-unit, test-integration, test-release
	./integration/test.sh

test-unit: ## test the packages, with the race detector
	./integration/test.sh packages journals

test-integration: ## test against real daemons and in guests, as root
	./integration/test.sh tools guests integration kata

test-release: deps tools ## build a whole release twice, install its packages, run its arm64 and the documents' commands; render the chart
	SHIMTRACE_RELEASE=all ./integration/test.sh release cluster
	SHIMTRACE_RELEASE=all $(GO) -C integration test -count=1 -timeout 15m ./machine ./packages

release: ## build archives, Debian and RPM packages, checksums and bills of materials into dist/
	$(GO) -C release run . -out ../dist

test-faults: build tools ## inject every kind of fault under load, as root; SHIMTRACE_WRITE_RELIABILITY=1 writes docs/reliability.md
	SHIMTRACE_FAULTS=all $(GO) -C integration test -count=1 -timeout 20m -parallel 3 ./faults
	SHIMTRACE_FAULTS=all $(GO) -C integration/vmshim test -count=1 -timeout 10m -run Faults ./...
	SHIMTRACE_KILL=300ms $(GO) -C integration test -count=1 -timeout 10m -run $(KILLED) ./traced

test-backends: build ## build a real Jaeger, OpenTelemetry Collector and Datadog Agent, and compare what they have with the journal, as root
	$(GO) -C integration run ./tools -backends
	SHIMTRACE_BACKENDS=1 $(GO) -C integration test -count=1 -timeout 10m -v ./backends

test-causes: build deps tools tools-vm ## seed every known cause of a slow start in real programs, on a machine that is not busy, as root; SHIMTRACE_WRITE_EXPLAIN=1 writes docs/explain.md
	$(GO) test -count=1 ./internal/explain
	SHIMTRACE_CAUSES=1 $(GO) -C integration test -count=1 -timeout 10m -run 'Seeded|Healthy' ./explain
	SHIMTRACE_CAUSES=1 $(GO) -C integration/vmshim test -count=1 -timeout 10m -run 'Seeded|Explain' ./...
	$(GO) test -count=1 ./internal/explain/seeded

soak-faults: build tools ## kill KILLS (default 10000) processes of shimtrace under load, as root
	SHIMTRACE_FAULTS=$(or $(KILLS),10000) $(GO) -C integration test -count=1 -timeout 6h -v -run TestKills ./faults

test-vm: deps tools tools-vm ## test only what runs in guests, also in an emulated host
	SHIMTRACE_NESTED=1 $(GO) -C integration test -count=1 -timeout 15m ./vm/...
	$(GO) -C integration/vmshim test -count=1 -timeout 5m -run Guest ./...

lint: ## run gofmt, go mod tidy, go vet, staticcheck, deadcode
	./integration/lint.sh

fuzz: ## run every fuzz target for FUZZTIME (default 10s), or those named like FUZZ
	./integration/fuzz.sh

soak: ## relay SOAK (default 100000) requests to the agent on one and two processors; compare every byte
	SHIMTRACE_SOAK=$(or $(SOAK),100000) $(GO) test ./internal/shim/kata -count=1 -timeout 60m -v -run TestSoakOfRequests

bench: build tools ## measure relayed against direct: latency, start time, memory
	./integration/bench.sh

picture: build tools ## make the documents' pictures of a pod's start, from the caller to its first instruction, as root
	SHIMTRACE_WRITE_EXPLAIN=1 $(GO) -C integration test -count=1 -run TestPicture ./explain

bench-idle: build tools ## measure what a hundred idle pods take of a processor
	$(GO) -C integration run ./bench -idle $(or $(PODS),100)

# With the flags of build, so that the compiler meets each package once.
demo: ## trace a container and a pod in a private containerd: the machine's own, or Debian's
	CGO_ENABLED=0 $(GO) -C integration run -trimpath ./demo

demo-vm: deps tools tools-vm ## trace a container with an agent in a real VM, as one trace
	$(GO) -C integration/vmshim run ./demo

install: build ## install the programs, and a link for each shim found, into /usr/local/bin
	$(BIN)/shimtrace install

clean:
	rm -rf $(BIN) dist
