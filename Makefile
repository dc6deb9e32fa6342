# Every command a person needs. Each installs what it needs first (Debian or Ubuntu).
SHELL := /bin/bash
# nft, sfdisk, mkfs.vfat: on Debian not in the path of a user that is not root.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
.DEFAULT_GOAL := help
EHR ?= built-in
PROFILE ?= release
export MACHINE VERSION VARIANT PROFILE KEYS REFRESH
CARGO ?= cargo
# Where cargo puts what it builds.
OUT := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help setup setup-test build image image-reproducible demo test test-image lint torture bench yocto-crates cross cross-test clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## Install what building needs
	@tools/setup build

setup-test: ## Install what the tests need as well
	@tools/setup test

build: setup ## Build the gateway in release form
	$(CARGO) build --release --locked --package vitalgate-daemon

image: ## The appliance: disk image, update bundle, list of parts, checksums (MACHINE=amd64|arm64, VERSION=, VARIANT=, PROFILE=, KEYS=)
	@tools/setup image
	@image/build/image

image-reproducible: ## Build the image twice and show that both are the same to the bit
	@tools/setup image
	@image/build/reproducible

demo: setup ## Devices, gateway and an EHR: readings arrive, an outage, and the proof (EHR=sekmet for a real FHIR server)
	@if [ "$(EHR)" = sekmet ]; then tools/setup sekmet; fi
	$(CARGO) build --release --locked --package vitalgate-daemon --package vitalgate-demo
	@"$(OUT)/release/vitalgate-demo" --ehr "$(EHR)"

lint: setup-test ## Format, lints, licences and banned crates
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) fetch --quiet --locked
	$(CARGO) deny --offline check bans licenses sources

test: setup-test lint ## Format, lints and all tests
	$(CARGO) build --locked --package vitalgate-daemon
	$(CARGO) nextest run --workspace --locked --no-fail-fast

test-image: setup-test ## Boot the appliance's image in a virtual machine and test it from outside (CASES="day refused scan survived service", MACHINE=, PROFILE=)
	@tools/setup image
	VERSION=0.1.0 image/build/image
	VERSION=0.2.0 image/build/image
	VERSION=0.3.0 VARIANT=broken image/build/image
	@case " $(CASES) " in "  " | *" scan "*) VERSION=0.1.0 VARIANT=inspect image/build/image ;; esac
	@case " $(CASES) " in "  " | *" service "*) tools/setup time-server && VERSION=0.1.0 VARIANT=shell image/build/image ;; esac
	$(CARGO) build --locked --package vitalgate-imagectl --package vitalgate-image-boot
	@"$(OUT)/debug/vitalgate-image-boot" $(CASES)

torture: setup-test ## The kill test with 1,000 kills
	$(CARGO) build --release --locked --package vitalgate-daemon
	VITALGATE_KILLS=1000 VITALGATE_BIN="$$(realpath "$(OUT)")/release/vitalgate" $(CARGO) nextest run --profile torture --locked --package vitalgate-e2e --test kill --no-capture

bench: setup-test ## The table of measured figures, also in target/bench.json
	$(CARGO) build --release --locked --package vitalgate-daemon --package vitalgate-bench
	@"$(OUT)/release/vitalgate-bench" --output "$(OUT)/bench.json"

yocto-crates: setup ## Write the Yocto layer's list of crates from Cargo.lock
	@$(CARGO) run --quiet --locked --package vitalgate-yocto-checks

cross: setup ## Build for aarch64, where this machine can have the target
	@tools/cross

cross-test: setup-test ## The unit tests for aarch64, in an emulator
	@tools/cross test

clean: ## Remove what was built
	$(CARGO) clean
