# Everything starts here. Needs make, Python 3.11 or newer and the package registry, nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STATE ?= .leadstats
RUNTIME := .venv/.requirements
DEVELOPMENT := .venv/.requirements-dev
PYTEST_ARGUMENTS ?=

.DEFAULT_GOAL := help
.PHONY: help up test check format licences openapi lock upgrade demo doctor clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

up: $(RUNTIME) ## everything running, until Ctrl-C; prints the address and the login
	@exec $(BIN)/python leadstats.py up --state $(STATE)

test: $(DEVELOPMENT) ## every test
	@exec $(BIN)/python -m pytest -n 2 $(PYTEST_ARGUMENTS)

check: $(DEVELOPMENT) ## format, lint, types, import contracts, migrations, licences
	$(BIN)/ruff format --check --output-format=concise .
	$(BIN)/ruff check --output-format=concise .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest tests/architecture/test_migrations.py
	$(BIN)/python -m deploy.licences --check

format: $(DEVELOPMENT) ## formats the code and sorts its imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

licences: $(DEVELOPMENT) ## writes docs/licences.md
	$(BIN)/python -m deploy.licences

openapi: $(DEVELOPMENT) ## writes docs/openapi.json
	$(BIN)/python -m api.app > docs/openapi.json

lock: $(DEVELOPMENT) ## brings requirements*.txt in step with pyproject.toml
	$(BIN)/python -m deploy.lock

upgrade: $(DEVELOPMENT) ## the same, with the newest versions that fit
	$(BIN)/python -m deploy.lock --upgrade

demo: $(RUNTIME) ## a demo organization on the running installation
	@exec $(BIN)/python leadstats.py demo --state $(STATE)

doctor: $(RUNTIME) ## says what is wrong with the installation
	@exec $(BIN)/python leadstats.py doctor --state $(STATE)

clean: ## removes .venv and caches; never the state
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found. Set PYTHON=/path/to/python3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11. Set PYTHON=/path/to/python3.11." >&2; exit 1; }
	$(PYTHON) -m venv .venv

# Installed again only when the lock has changed.
$(RUNTIME): requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt
	@$(BIN)/python -m deploy.entry_point
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUNTIME) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	@touch $@
