# Everything a fresh machine needs is Python 3.11, make and git; the rest is installed here.
PYTHON ?= python3
BIN    := .venv/bin
# More than there are cores: many tests wait for processes other than their own.
WORKERS := 4
# By modules, which share what is dear to start; the longest first (tests/conftest.py).
PYTEST := ../$(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
NPM    := PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix frontend

# A system that forbids bytecode would have every program compile itself at each start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run test debian test-backend test-fault test-frontend test-e2e search coverage check format contracts lock bench fault clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- what is installed and built -------------------------------------------------------------

# Python's own installer takes five times as long; it knows the way where only its settings do.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
UV  := $(BIN)/uv pip install --quiet --python $(BIN)/python
install = $(UV) $(1) || $(PIP) $(1)

$(BIN)/uv: backend/requirements-install.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes -r backend/requirements-install.lock
	touch $@

.venv/.runtime: $(BIN)/uv backend/requirements.lock backend/pyproject.toml
	$(call install,--require-hashes -r backend/requirements.lock)
	$(call install,--no-deps --no-build-isolation -e backend)
	touch $@

.venv/.dev: .venv/.runtime backend/requirements-dev.lock
	$(call install,--require-hashes -r backend/requirements-dev.lock)
	touch $@

frontend/node_modules/.installed: .venv/.runtime frontend/package-lock.json
	$(NPM) ci --no-audit --no-fund --loglevel=error
	touch $@

FRONTEND_SOURCES := $(shell find frontend -path '*/node_modules' -prune -o -path '*/dist' -prune -o -type f -print 2>/dev/null)

frontend/app/dist/index.html: frontend/node_modules/.installed $(FRONTEND_SOURCES)
	$(NPM) run --silent build

# --- commands --------------------------------------------------------------------------------

run: .venv/.runtime frontend/app/dist/index.html ## start everything on embedded servers
	@exec $(BIN)/notify up

test: .venv/.runtime ## install what the tests need and run all of them
	scripts/ask-sudo chromium pgbouncer
	$(MAKE) --jobs=3 .venv/.compiled frontend/app/dist/index.html debian
	scripts/at-once "$(MAKE) test-backend" "$(MAKE) test-frontend test-e2e test-fault"

# Both at once: apt locks out a second one, which would keep one half of the tests waiting.
debian:
	scripts/install "chromium pgbouncer" chromium fonts-liberation pgbouncer

# All test processes need the same bytecode at their start: one makes it for them.
.venv/.compiled: .venv/.dev
	cd backend && ../$(BIN)/python -m pytest --collect-only --quiet >/dev/null || true
	touch $@

test-backend: .venv/.compiled
	scripts/install pgbouncer pgbouncer
	cd backend && $(PYTEST) -n $(WORKERS) --ignore tests/fault $(ARGS)

# These mostly wait for what they killed, so they go beside the others with a process of their own.
test-fault: .venv/.compiled
	cd backend && ../$(BIN)/python -m pytest tests/fault $(ARGS)

# Tracing doubles the processor time of the tests, so it has a command of its own.
coverage: .venv/.dev ## run the backend's tests and show which lines none of them reaches
	scripts/install pgbouncer pgbouncer
	cd backend && $(PYTEST) -n 2 --cov --cov-report=term:skip-covered $(ARGS)

search: .venv/.dev ## look for examples that break the laws of the policy
	cd backend && $(PYTEST) -n 2 tests/property --hypothesis-profile searching $(ARGS)

test-frontend: frontend/node_modules/.installed
	$(NPM) run --silent test

test-e2e: frontend/app/dist/index.html
	scripts/install chromium chromium fonts-liberation
	$(NPM) run --silent e2e

check: .venv/.dev frontend/node_modules/.installed ## format, lint, types, import direction, contract drift
	$(BIN)/ruff format --check --quiet backend scripts && $(BIN)/ruff check --quiet backend scripts
	cd backend && ../$(BIN)/lint-imports --no-cache
	cd backend && ../$(BIN)/basedpyright --level error
	$(NPM) run --silent check
	$(BIN)/python scripts/contracts.py --check
	$(BIN)/python scripts/traceability.py

format: .venv/.dev frontend/node_modules/.installed ## rewrite the sources in the project's format
	$(BIN)/ruff check --quiet --fix backend scripts; $(BIN)/ruff format --quiet backend scripts
	$(NPM) run --silent format

contracts: .venv/.dev frontend/node_modules/.installed ## write openapi.json, its types and the reference docs
	$(BIN)/python scripts/contracts.py

lock: .venv/.dev ## lock the Python and npm packages anew
	echo uv | $(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-header --no-annotate - -o backend/requirements-install.lock
	cd backend && ../$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-header --no-annotate pyproject.toml -o requirements.lock
	cd backend && ../$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-header --no-annotate pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	$(NPM) install --package-lock-only --omit-lockfile-registry-resolved

bench: .venv/.dev ## measure against the requirements' section 8.1
	cd backend && ../$(BIN)/python -m bench

fault: .venv/.dev ## kill and starve the parts while counting what arrives
	cd backend && ../$(BIN)/python -m faults $(ARGS)

clean: ## remove everything that was installed, built or stored
	rm -rf .venv .data frontend/node_modules frontend/app/dist
