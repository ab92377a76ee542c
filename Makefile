# Go and make are all a machine needs. Tools are pinned in Go modules (scripts/tools/*) and built into .tools/bin on
# first use. ARGS goes to what a target runs: make run ARGS=--help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

# The root is a workspace, not a module: ./... means nothing here, so each module is named. Expanded only where used.
PACKAGES = $(shell go list -f '{{.Dir}}/...' -m)
BINARIES := ./services/standalone/cmd/runnel ./services/gateway/cmd/runnel-gateway \
            ./services/delivery/cmd/runnel-delivery ./services/history/cmd/runnel-history
# A planted bug is a build tag that must turn the torture run red.
BUG_TAGS = $(shell grep -rhoE --include='*.go' '^//go:build runnel_bug_[a-z_]+' pkg services | sed 's/.* //' | sort -u | paste -sd, -)

# One stamp per tool module. The Go version is part of it: a linter built with an older Go refuses newer code.
GO_VERSION := $(shell go env GOVERSION)
BUF := .tools/bin/.buf-$(GO_VERSION)
LINTERS := .tools/bin/.lint-$(GO_VERSION)
TESTERS := .tools/bin/.test-$(GO_VERSION)
HELM := .tools/bin/.k8s-$(GO_VERSION)

##@ Using it
.PHONY: run build
run: ## Build and run everything in one process; it prints what to open (ARGS)
	@echo "building bin/runnel (the first time takes a few minutes)"
	@CGO_ENABLED=0 go build -trimpath -ldflags="$$(scripts/stamp.sh)" -o bin/runnel ./services/standalone/cmd/runnel
	@exec bin/runnel $(ARGS)

build: ## Build the four binaries into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags="-s -w $$(scripts/stamp.sh)" -o bin/ $(BINARIES)

##@ Proving it
.PHONY: test test-unit test-images test-k8s torture-short torture-prove torture torture-long torture-roll mutate stress fuzz cover bench bench-path
test: ## Everything CI runs: the checks, the tests, the short torture run
	@scripts/test.sh

test-unit: $(TESTERS) $(HELM) ## The tests of every module with the race detector (ARGS to go test)
	@scripts/unit.sh $(ARGS)

test-images: ## The container images and what assembles them
	@scripts/images.sh test

test-k8s: ## The chart in a real Kubernetes control plane, built here; minutes the first time (ARGS to go test)
	@scripts/k8s.sh $(ARGS)

torture-short: $(BUF) ## About two minutes of killing processes under load (ARGS)
	go run ./services/e2e/cmd/torture --short $(ARGS)

torture-prove: $(BUF) ## The torture run must find every planted bug, and nothing without one (ARGS)
	go run ./services/e2e/cmd/torture --prove $(ARGS)

torture: $(BUF) ## One run of any kind; see ARGS=--help
	go run ./services/e2e/cmd/torture $(ARGS)

torture-long: $(BUF) ## Round after round of every fault, until BUDGET=30m is spent (ARGS)
	go run ./services/e2e/cmd/torture --long --budget $(or $(BUDGET),30m) $(ARGS)

torture-roll: $(BUF) ## Replace all gateways under 5,000 connected clients (ARGS)
	go run ./services/e2e/cmd/torture --roll $(ARGS)

mutate: ## Which mistakes in the pure parts no test notices (ARGS: packages, --write)
	go run ./services/e2e/cmd/mutate $(ARGS)

stress: $(TESTERS) $(HELM) ## The tests TIMES=5 times, on busy processors, with small and large sockets (ARGS: packages)
	@scripts/stress.sh $(ARGS)

fuzz: ## Every fuzz target for FUZZTIME=10s each
	@scripts/fuzz.sh

cover: ## What the tests cover, into .tools/cover.html
	@scripts/cover.sh

bench: ## Every scenario of the benchmark (ARGS)
	go run ./services/e2e/cmd/bench $(ARGS)

bench-path: ## What one message costs, counted by stage: wake-ups, system calls, allocations, bytes (ARGS)
	go run ./services/e2e/cmd/bench-path $(ARGS)

##@ Checking it
.PHONY: vet lint fmt tidy tidy-check
vet: ## go vet, also over the code of the planted bugs
	go vet $(PACKAGES)
	$(if $(BUG_TAGS),go vet -tags $(BUG_TAGS) $(PACKAGES))

lint: $(BUF) $(LINTERS) $(TESTERS) ## The schema, its compatibility, formatting, golangci-lint
	@scripts/lint.sh

fmt: $(BUF) $(TESTERS) ## Format Go and protobuf
	.tools/bin/gofumpt -w $$(go list -f '{{.Dir}}' -m)
	.tools/bin/buf format -w proto

tidy: ## go mod tidy in every module of the workspace
	@scripts/tidy.sh

tidy-check: ## Fail where tidy would change something
	@scripts/tidy.sh check

##@ Deploying it
.PHONY: manifests manifests-check images
manifests: $(HELM) ## Render the Helm chart into deploy/manifests
	@scripts/manifests.sh

manifests-check: $(HELM) ## Fail if the manifests do not follow from the chart; changes nothing
	@scripts/manifests.sh check

images: ## Assemble the container images into bin/images, without a container engine (ARGS)
	@scripts/images.sh $(ARGS)

##@ Schema and tools
.PHONY: generate generate-check release-schema tools clean help
generate: $(BUF) ## Generate the Go code of proto/ and the reference of pkg/protocol
	@scripts/generate.sh

generate-check: $(BUF) ## Fail if a generated file is stale; changes nothing
	@scripts/generate.sh check

release-schema: $(BUF) ## Make today's schema the one that later changes must not break
	cd proto && ../.tools/bin/buf build --exclude-source-info -o released.binpb

tools: $(BUF) $(LINTERS) $(TESTERS) $(HELM) ## Build the pinned tools into .tools/bin
	@:

.tools/bin/.%-$(GO_VERSION): scripts/tools/%/go.mod scripts/tools/%/go.sum
	@scripts/tool.sh scripts/tools/$* $@

clean: ## Remove what was built, the tools too
	rm -rf bin .tools

help: ## This list
	@sed -nE -e 's/^##@ (.*)/\n\1/p' -e 's/^([a-z0-9-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
