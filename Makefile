# The two commands of the README, and a few more. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help up test build release check bench compose-images soak

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

up: ## Build, start, deploy an example, call it, and keep serving
	@scripts/up

test: ## Everything that CI runs; installs and starts what it needs, stops what it started
	@scripts/test

build: ## The quick build: target/quick/hanshu
	cargo build --locked --profile quick -p hanshu-cli

release: ## The build to install: target/release/hanshu
	cargo build --locked --release -p hanshu-cli

bench: ## Every promised figure against its ceiling, about 15 minutes; ROWS="sync_1 overload", ARGS=--quick
	@scripts/bench

check: ## Formatting, lints and tidiness, without services
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo xtask tidy

compose-images: ## The base image and the .env that docker-compose.yml needs
	@scripts/compose-prepare

soak: ## Load and bad luck from a seed, 10 minutes: SOAK=1h SEED=7
	@SOAK=$(SOAK) SEED=$(SEED) KEEP=$(KEEP) scripts/soak
