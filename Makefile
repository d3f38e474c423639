# What one does with this checkout. `make run` and `make test` prepare everything they need.

PYTHON = .venv/bin/python3
RUN_FLAGS ?= --environment embedded
# '--numprocesses 2' tests two files at a time, in two thirds of the time; of the tests that watch
# what the kernel and other processes do meanwhile, two or three of 5,000 may then fail by the load.
TEST_FLAGS ?=

.PHONY: help setup run test check lint types imports fmt bench bench-supervisor bench-security bench-data bench-net bench-vm lab clean

help:
	@echo "make run     prepare this machine, then run a node in the foreground (Ctrl-C stops it)"
	@echo "make test    prepare this machine, then run every check and every test"
	@echo "make check   style, types and import contracts"
	@echo "make fmt     format the code"
	@echo "make bench   print the figures, one JSON line each"
	@echo "make bench-supervisor   the supervisor beside supervisord, circus, Erlang and s6"
	@echo "make bench-data         the data level: queries, health table; the long soak is soak_data"
	@echo "make bench-net          networks beside the ip program, segments beside nft"
	@echo "make bench-vm           machines beside libvirt-python and virsh, events, a killed platform"
	@echo "make bench-security     the security level: audit log, sealing, policy"
	@echo "make lab     two hosts with a node each and a link between them (Ctrl-C takes them down)"
	@echo "make clean   remove what was generated, but no node's state"

setup:
	@etc/setup/install.sh

run: setup
	@bin/novacron run $(RUN_FLAGS)

test: check
	$(PYTHON) -m pytest -m "" --no-skips $(TEST_FLAGS)

check: lint types imports

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup
	$(PYTHON) -m mypy

imports: setup
	.venv/bin/lint-imports --no-logo

fmt: setup
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench: setup
	$(PYTHON) -m tests.bench

bench-supervisor: setup
	$(PYTHON) -m tests.bench.supervisor

bench-data: setup
	$(PYTHON) -m tests.bench --only data

bench-net: setup
	$(PYTHON) -m tests.bench --only net_

bench-vm: setup
	$(PYTHON) -m tests.bench --only vm

bench-security: setup
	$(PYTHON) -m tests.bench.security

lab: setup
	@$(PYTHON) -m tests.lab up --wait $(LAB_FLAGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
