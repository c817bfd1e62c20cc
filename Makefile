# `make` lists the targets. Go, make and a C compiler (for the race detector) are needed; tools are pinned in tools/go.mod.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Where `make install` puts the programs: those that people run, and the plugin.
PREFIX     ?= /usr/local
CNI_BIN    ?= /opt/cni/bin
# How long each fuzz target runs.
FUZZTIME   ?= 10s
# What the image is called in the archive; the manifests use it.
IMAGE      ?= docker.io/library/plexus:dev
# What `make bench` measures: -quick takes a minute or two, -full a quarter of an hour.
BENCH      ?= -quick
# How many schedules `make crash` runs.
SCHEDULES  ?= 10000

# Which packages `make mutants` changes: those of values and decisions, which their own tests cover.
MUTANTS    ?= ./annotations ./nad ./internal/pod ./internal/config ./internal/source ./internal/wire ./internal/record ./delegate ./sriov

BIN        := $(CURDIR)/bin
# grpcnotrace: gRPC's request tracing, which nothing here serves, would add a quarter to plexusd.
RELEASE    := -tags=grpcnotrace -trimpath -ldflags='-s -w'
GOLANGCI   := go tool -modfile=tools/go.mod golangci-lint
# As `go test`, whose output it shows; then the tests that skipped, with their reasons.
GOTESTSUM  := go tool -modfile=tools/go.mod gotestsum --format standard-quiet
E2E        := cd e2e && go tool -modfile=../tools/go.mod gotestsum --format standard-quiet -- ./suite -count=1 -timeout 60m
MODULES    := $(patsubst %/go.mod,%,$(wildcard ./go.mod */go.mod */*/go.mod */*/*/go.mod))

# What the virtual machine of e2e-sriov loads.
VM_MODULES := igb,igbvf,netdevsim,vfio_iommu_type1,vfio-pci,8021q,veth,bridge

# $(call fetch,COMMAND) runs what downloads, three times at most: a mirror or a proxy that fails often answers a moment later.
fetch = (for try in 1 2 3; do $(1) && exit; [ $$try -lt 3 ] || exit 1; echo 'that failed: trying again' >&2; sleep $$((3 * try)); done)

# What tests and demo run that Go cannot bring, as command:package. A test that needs one skips without it, and names it; in CI it fails.
DEPS       := nft:nftables

##@ Use

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## Build the programs into bin/
	CGO_ENABLED=0 go build $(RELEASE) -o $(BIN)/ ./cmd/...

.PHONY: plugins
plugins: ## Build the reference CNI plugins into bin/cni/
	CGO_ENABLED=0 go build -C tools/cni-plugins $(RELEASE) -o $(BIN)/cni/ tool

.PHONY: image
image: ## Build the container image, dist/plexus.tar, an OCI archive for amd64 and arm64; takes neither Docker nor a network
	for arch in amd64 arm64; do CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build $(RELEASE) -o $(BIN)/image/linux-$$arch/ ./cmd/plexus ./cmd/plexusd ./cmd/plexusctl; done
	mkdir -p dist
	cd e2e && go run ./cmd/image -o ../dist/plexus.tar -ref $(IMAGE) -platforms linux/amd64,linux/arm64 -user 0:0 -entrypoint /usr/bin/plexusd \
		-label org.opencontainers.image.title=plexus -label org.opencontainers.image.version=$$(cat ../VERSION) -label org.opencontainers.image.licenses=Apache-2.0 \
		$(BIN)/image/linux-{arch}/plexus=/usr/bin/plexus $(BIN)/image/linux-{arch}/plexusd=/usr/bin/plexusd $(BIN)/image/linux-{arch}/plexusctl=/usr/bin/plexusctl

.PHONY: release
release: ## Make the files of a release in dist/release: archives, image, install.yaml, chart, bills of materials, checksums
	tools/release.sh

.PHONY: demo
demo: deps build plugins ## Show two pods on three networks each; needs root
	go run ./demo

.PHONY: install
install: build ## Install plexus into CNI_BIN, plexusctl and kubectl-plexus into PREFIX/bin (DESTDIR is respected)
	install -D -t $(DESTDIR)$(CNI_BIN) $(BIN)/plexus
	install -D -t $(DESTDIR)$(PREFIX)/bin $(BIN)/plexusctl $(BIN)/kubectl-plexus

##@ Test

.PHONY: test
test: deps ## Run all tests, and list those that skipped; those that need a network namespace run as root, or in a user namespace
	$(GOTESTSUM) -- -race -shuffle=on ./...

.PHONY: test-deploy
test-deploy: ## Render the manifests as kubectl and Helm do, and look at what comes out
	go test -C deploy/render ./...

.PHONY: test-release
test-release: ## Make the release of the last commit twice, in different places, and compare
	tools/release_test.sh

.PHONY: e2e-deps
e2e-deps: # Build the Kubernetes components (minutes, once) into the user's cache, and install what they run
	cd e2e && go run ./cmd/e2e deps

.PHONY: e2e
e2e: e2e-deps ## Test on a real cluster of this machine: etcd, API server, kubelet, containerd; needs root
	cd e2e && go test ./cluster/... ./components/... ./image/...
	$(E2E)

.PHONY: e2e-helm
e2e-helm: e2e-deps ## As e2e, with Plexus installed by its chart, and in another namespace
	$(E2E) -args -install helm -namespace cni-plexus

.PHONY: e2e-sriov
e2e-sriov: build plugins ## Test on real VFs, in a virtual machine with emulated SR-IOV NICs
	cd e2e && go run ./cmd/vm deps
	CGO_ENABLED=0 go test -c -o $(BIN)/sriov.test ./integration/sriov
	cd e2e && go run ./cmd/vm run -iommu -pfs 2 -modules $(VM_MODULES) -limit 15m -env "CI=$${CI:-}" -file $(BIN)/plexus:plexus -file $(BIN)/cni/host-local:host-local \
		-file $(BIN)/cni/ptp:ptp -- $(BIN)/sriov.test -vfs -test.v

.PHONY: e2e-kind
e2e-kind: image ## Test on a kind cluster; needs Docker and kind
	$(E2E) -args -provider kind

.PHONY: e2e-down
e2e-down: # Take away a cluster that was kept, or that a killed run left
	cd e2e && go run ./cmd/e2e down

.PHONY: crash
crash: deps ## Kill at random, SCHEDULES times (10000), and look at what is left; some are in `make test`
	go test ./integration/crash -count=1 -timeout 3h -run Schedules -v -args -schedules $(SCHEDULES)

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (10s)
	@for pkg in $$(go list ./...); do \
		targets=$$(go test -list '^Fuzz' $$pkg); \
		for target in $$(sed -n '/^Fuzz/p' <<<"$$targets"); do \
			echo "go test -run '^$$' -fuzz ^$$target\$$ -fuzztime $(FUZZTIME) $$pkg"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

.PHONY: mutants
mutants: deps ## Change MUTANTS' code in small ways, one at a time, and list the changes that no test of theirs notices; takes hours
	@for pkg in $(MUTANTS); do \
		echo "$$pkg"; \
		go tool -modfile=tools/mutants/go.mod gremlins unleash --workers 1 --timeout-coefficient 10 --output-statuses lct $$pkg; \
	done

.PHONY: bench
bench: build plugins ## Measure what Plexus costs beside its delegates (BENCH='-full -json FILE'; see docs/performance.md)
	go run ./bench -bin $(BIN) $(BENCH)

.PHONY: cover
cover: deps ## Run all tests and write coverage.html
	go test -coverprofile=coverage.out -coverpkg=./... ./...
	go tool cover -html=coverage.out -o coverage.html
	go tool cover -func=coverage.out | tail -1

##@ Change

.PHONY: check
check: lint test verify ## All that has to pass before a change is sent

.PHONY: lint
lint: ## Check code and format
	$(GOLANGCI) run ./...
	$(GOLANGCI) fmt --diff
	cd e2e && go tool -modfile=../tools/go.mod golangci-lint run ./...
	cd deploy/render && go tool -modfile=../../tools/go.mod golangci-lint run ./...

.PHONY: fmt
fmt: ## Format the code
	$(GOLANGCI) fmt

.PHONY: generate
generate: ## Write the generated code and manifests
	go generate ./...

# A snapshot is the tree of all files as they are, committed or not.
snapshot = GIT_INDEX_FILE=$$(git rev-parse --absolute-git-dir)/verify-index sh -c 'git add -A && git write-tree'

.PHONY: verify
verify: ## Check that generated code, format and go.mod files are current, and the plugin's imports and size
	@before=$$($(snapshot)); \
	$(MAKE) --no-print-directory generate fmt; \
	git diff --exit-code "$$before" "$$($(snapshot))" || { echo 'verify: commit what `make generate fmt` just changed'; exit 1; }
	@for module in $(MODULES); do echo "go -C $$module mod tidy -diff"; go -C $$module mod tidy -diff; done
	go test -count=1 -run 'TestImports|TestBinarySize' ./cmd/plexus

.PHONY: deps
deps: # Install what is missing of DEPS, where that is possible. In CI it has to be.
	@missing=; for dep in $(DEPS); do command -v "$${dep%%:*}" >/dev/null || missing+=" $${dep##*:}"; done; \
	[ -z "$$missing" ] || { command -v apt-get && [ "$$(id -u)" = 0 ] && \
		$(call fetch,{ apt-get -q update || true; } && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $$missing); } >/dev/null || { \
		echo "deps: tests skip what needs these packages; install them:$$missing"; [ -z "$${CI:-}" ]; }

.PHONY: modules
modules: # Fetch the Go modules of everything, so that nothing else depends on the proxy
	@for module in $(MODULES); do $(call fetch,go -C $$module mod download); done

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN) dist coverage.out coverage.html
