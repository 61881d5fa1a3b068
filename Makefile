# The same commands for people and for CI. A bare `make` lists them.

GO      ?= go
TOOL     = $(GO) tool -modfile=infra/tools.mod
PKGS     = ./...
BIN      = bin/shapeline
FUZZTIME ?= 60s
SEEDS    ?= 10000
SCALE    ?= 30
ONLY     ?=

# No cgo anywhere, so that every platform can be built from every other.
export CGO_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help dev build check lint test race e2e stores fuzz soak bench

help: ## this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

dev: build ## build, and run everything in one process: prints a curl to try
	@infra/need.sh postgres
	$(BIN) dev

build: ## build bin/shapeline
	$(GO) build -trimpath -o $(BIN) ./cmd/shapeline

check: lint test e2e stores ## everything that must pass before a commit; installs what it needs

lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "run gofmt -w on:"; echo "$$out"; exit 1; }
	$(GO) vet $(PKGS)
	$(TOOL) staticcheck $(PKGS)

test: ## the tests that need Go alone
	$(GO) test $(PKGS)

race: ## the same under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race $(PKGS)

e2e: ## the tests that need Postgres, Node and MinIO, which it installs where it can
	@infra/need.sh postgres node minio
	SHAPELINE_TEST_E2E=1 $(GO) test -count=1 -p 1 -timeout 30m ./internal/localpg ./ingest/... ./tests/...

stores: ## the end-to-end tests on MinIO and VersityGW, which it builds
	@infra/need.sh postgres node minio versitygw
	SHAPELINE_TEST_E2E=1 $(GO) test -count=1 -p 1 -timeout 10m ./internal/object/...
	for store in minio versitygw; do SHAPELINE_TEST_STORE=$$store SHAPELINE_TEST_E2E=1 $(GO) test -count=1 -p 1 -timeout 30m \
	  ./tests/conformance ./tests/oracle ./tests/crash || exit 1; done

fuzz: ## every fuzz target for FUZZTIME (60s)
	@infra/fuzz.sh $(FUZZTIME)

soak: ## the long runs: SEEDS simulations of the log, 200 of chaos, 60,000 clients of random histories, SCALE rounds of crashes, a million rows
	@infra/need.sh postgres node minio
	SHAPELINE_SIM_SEEDS=$(SEEDS) $(GO) test -count=1 -timeout 60m -run 'TestSim|TestEachRule' ./internal/shapelog
	SHAPELINE_CHAOS_SEEDS=200 SHAPELINE_TEST_E2E=1 $(GO) test -count=1 -timeout 60m -parallel 8 ./tests/chaos
	SHAPELINE_SIM_CLIENTS=60000 $(GO) test -count=1 -timeout 60m -run TestClientsOfHistories ./ingest/compact
	SHAPELINE_SIM_CLIENTS=60000 $(GO) test -count=1 -timeout 60m -run TestClientsOfHistories ./ingest/compact
	SHAPELINE_TEST_E2E=1 SHAPELINE_TEST_SCALE=$(SCALE) $(GO) test -count=1 -p 1 -timeout 120m ./tests/...

bench: build ## the performance goals, measured against their denominators; ONLY=G6 for one
	@infra/need.sh postgres
	$(GO) run ./tests/bench -only "$(ONLY)"
