# Everything a person types. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CONTEXT ?=
export CONTEXT

.PHONY: help
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## train a real model on a real cluster on this machine (CONTEXT=<name> uses that kubectl context instead)
	hack/demo/demo.sh up

.PHONY: demo-down
demo-down: ## remove everything `make demo` made, but for the build cache
	hack/demo/demo.sh down

.PHONY: kubeconfig
kubeconfig: ## print the path of the local cluster's kubeconfig
	@hack/cluster/kubeconfig.sh --name demo

.PHONY: gateway-url
gateway-url: ## print the URL of the demo's REST gateway
	@hack/demo/gateway.sh url

.PHONY: api-key
api-key: ## print a key for the demo's REST gateway, good for a day
	@hack/demo/gateway.sh key

.PHONY: generate
generate: ## write crds/, RBAC and the files of the chart from the code
	cargo run --quiet -- generate

.PHONY: lint
lint: ## rustfmt, clippy and rustdoc, all warnings refused
	cargo fmt --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

.PHONY: test-fast
test-fast: ## unit, golden, scenario and drift tests: needs cargo alone
	cargo test --workspace

.PHONY: test-manifests
test-manifests: ## lint and render chart (Helm 3 and 4) and kustomize
	hack/cluster/build.sh control-plane
	hack/manifests/check.sh

.PHONY: test-integration
test-integration: ## the operator against a real control plane with simulated nodes
	hack/test/integration.sh

.PHONY: test-all
test-all: lint test-fast test-manifests ## everything, with the operator killed before, during and after every write: over an hour; needs root
	FINETUNE_IT_ALL=1 hack/test/integration.sh
	CRASHES=all hack/test/e2e.sh

.PHONY: test-e2e
test-e2e: ## the packaged operator on a real node with a real trainer; needs root
	hack/test/e2e.sh

.PHONY: bench
bench: ## what runs cost in requests, time, CPU and memory, on simulated nodes
	hack/bench/bench.sh

.PHONY: test
test: lint test-fast test-manifests test-integration test-e2e ## everything above
