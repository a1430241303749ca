# Every recipe works on a bare machine with Python 3.11 or later: what it needs is made first.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Runtimes and models, several GB: one tree for all clones of this user.
VLLAMAD_HOME ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vllamad-dev
export VLLAMAD_HOME

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
READY := .venv/ready
CLIENTS := .venv-conformance
CLIENTS_READY := $(CLIENTS)/ready
UNIT := not integration and not e2e and not conformance and not system and not vm
COVERED := $(BIN)/coverage run -m pytest -q
# Of core and wire, branches counted, in percent.
COVERAGE_FLOOR ?= 100

help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make the project's own environment

$(READY): pyproject.toml packaging/environment.py
	@$(if $(PYTHON),,echo '✗ environment: cannot find Python 3.11 or later; name one: make PYTHON=...'; exit 1)
	@$(PYTHON) packaging/environment.py .venv
	@touch $@

demo: $(READY) ## talk to a real model; PORT=, MODEL=org/name, CHECK=1
	@$(BIN)/python packaging/demo.py

check: lint types floors unit ## the fast gate: all of these four

fmt: $(READY) ## format the sources
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: $(READY) ## check the format, find mistakes
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(READY) ## check types, strictly
	$(BIN)/pyright

floors: $(READY) ## check which part imports which
	$(BIN)/lint-imports

unit: $(READY) ## fast tests: no processes of ours, no engine
	$(BIN)/pytest -q -m '$(UNIT)'

integration: $(READY) ## real processes, sockets and signals, with the scripted fake engine
	$(BIN)/pytest -q -m integration

system: $(READY) ## the units under a real systemd in a container; needs root
	$(BIN)/pytest -q -m system

vm: $(READY) ## limits of memory in a virtual machine, a few minutes; needs root
	$(BIN)/pytest -q -m vm

e2e: prepare ## the real engine and a real model
	$(BIN)/pytest -q -m e2e

conformance: prepare $(CLIENTS_READY) ## each client people use on the real engine; CLIENT=name
	@$(BIN)/python -m tests.conformance $(CLIENT)

$(CLIENTS_READY): $(addprefix tests/conformance/,requirements.txt requirements-litellm.txt package.json) | $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python packaging/environment.py $(CLIENTS)/clients tests/conformance/requirements.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python packaging/environment.py $(CLIENTS)/litellm tests/conformance/requirements-litellm.txt
	@cp tests/conformance/package.json $(CLIENTS)/
	@if command -v npm >/dev/null; then \
		cd $(CLIENTS) && npm install --no-audit --no-fund --loglevel=error; \
	else echo '• no npm: the JavaScript client is left out'; fi
	@touch $@

prepare: $(READY) ## have the engine runtime and the models of the tests ready
	@$(BIN)/python packaging/prepare.py

test: lint types floors prepare ## everything this machine can run, but the clients of others
	@rm -f .coverage
	$(COVERED) -m '$(UNIT)'
	$(BIN)/coverage report --include='vllamad/core/*,vllamad/translate/*,vllamad/protocol/*,vllamad/access/*,vllamad/http/chunked.py' --fail-under=$(COVERAGE_FLOOR)
	@echo '→ integration and system tests side by side: they mostly wait; quiet for some minutes'
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target integration system
	$(BIN)/pytest -q -m e2e

package: $(READY) ## the deb and the rpm, into dist/; PYTHON_OF=3.13 for another distribution's
	$(BIN)/python packaging/package.py $(if $(PYTHON_OF),--python $(PYTHON_OF))

bench: $(READY) ## the relay beside a bare relay and the engine itself
	$(BIN)/python -m tests.bench

bench-cpu: prepare ## the real engine on this CPU, beside another tree: LANDED=its folder
	@$(if $(LANDED),,echo '✗ name a checkout of the other tree: make bench-cpu LANDED=folder'; exit 1)
	$(BIN)/python -m tests.bench.cpu --landed '$(LANDED)' $(if $(STAND_IN),--stand-in)

bench-pulls: $(READY) ## pulls beside the hub's own library, 500 models listed; 10 GB of disk
	$(BIN)/python -m tests.bench.pulls
	$(BIN)/python -m tests.bench.library

clean: ## remove the environment and what was built
	rm -rf .venv $(CLIENTS) build dist .coverage .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find vllamad vllamactl tests packaging -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the runtimes and models as well
	rm -rf '$(VLLAMAD_HOME)'

.PHONY: help setup demo check fmt lint types floors unit integration system vm e2e conformance prepare test package bench bench-cpu bench-pulls clean distclean
