# Each target is a few lines; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

WEB := server/web
CARGO ?= cargo
SCRIPTS = .ci/run packaging/*.sh packaging/sample-app/*.sh packaging/deb/*.p* tests/packages/*.sh

.PHONY: help run build web test lint bench package clean tools

help: ## Lists the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## Starts server and agent on this machine, builds them first
	@packaging/run.sh

build: web ## Release binaries with the dashboard inside, in target/release
	$(CARGO) build --release --locked -p shipwatch-server -p shipwatch-agent --bins

web: $(WEB)/dist/index.html ## The dashboard, in server/web/dist

$(WEB)/node_modules/.installed: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --no-audit --no-fund --loglevel=error
	touch $@

$(WEB)/dist/index.html: $(WEB)/node_modules/.installed $(shell find $(WEB)/src $(WEB)/public $(WEB)/index.html $(WEB)/vite.config.ts -type f 2>/dev/null)
	cd $(WEB) && npm run build

test: tools web ## Everything: unit, property, golden, end to end, browser, packages
	packaging/phase.sh "dashboard: unit tests and types" bash -c 'cd $(WEB) && npm test && npm run check'
	packaging/phase.sh "build" $(CARGO) build --workspace --bins --locked
	packaging/phase.sh "tests" $(CARGO) test --workspace --locked --no-fail-fast
	packaging/phase.sh "dashboard: browser" bash -c 'cd $(WEB) && npm run e2e'
	packaging/phase.sh "browser against the real server" packaging/browser.sh
	packaging/phase.sh "packages" tests/packages/run.sh

lint: $(WEB)/node_modules/.installed ## Formatting, clippy, types, scripts, licences and advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	cd $(WEB) && npm run check
	if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); else for script in $(SCRIPTS); do bash -n "$$script"; done; fi
	packaging/links.sh
	if command -v cargo-deny >/dev/null; then $(CARGO) deny --locked check; else echo "cargo-deny is not installed: licences and advisories were not checked (cargo install cargo-deny)"; fi

bench: ## First figures: agent cost, ingest, swarm, mask, tail (BENCH="agent --minutes 1"); see benches/README.md
	$(CARGO) build --release --locked -p shipwatch-server -p shipwatch-agent --bins
	$(CARGO) run --release --locked -p shipwatch-benches -- $(BENCH)

package: web ## deb and rpm of agent and server, in dist/
	$(CARGO) build --profile $(or $(PROFILE),dist) --locked -p shipwatch-server -p shipwatch-agent --bins
	packaging/build.sh --bin-dir target/$(or $(PROFILE),dist) --out dist

tools:
	@packaging/tools.sh

clean: ## Removes everything that was built
	rm -rf target dist $(WEB)/dist $(WEB)/node_modules
