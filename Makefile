# Everything is set up by the target that needs it: `make demo` and `make test` work in a fresh clone.
# Python 3.11 or newer with venv and pip; another interpreter: make PYTHON=/path/to/python3 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# What has not finished after this many seconds is a failure.
TEST_SECONDS := 1800

# The words and the pure core (ARCHITECTURE.md): every branch of them is taken by some test in virtual time. No other test counts: what a
# slow machine, a killed process or a random example happens to reach is another thing every time.
PURE := exceptions checks types context graph definition events state_machine state frontier fold outcomes planner
TIMELESS := test_saga_pattern.py tests/unit tests/golden
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal --session-timeout=$(TEST_SECONDS)
empty :=
comma := ,
PURE_FILES := $(subst $(empty) ,$(comma),$(PURE:%=saga/%.py) saga/strategies/*.py)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench chaos lock clean

help:
	@echo "make demo    run three orders on real services: one completes, one is undone, one survives its process's death"
	@echo "make test    run every test"
	@echo "make check   formatting, lint, types, layers, house rules"
	@echo "make bench   measure, and hold the figures against their floors"
	@echo "make chaos   the long forms of the tests"
	@echo "make lock    write requirements/*.txt anew (UPGRADE=1 takes newer versions)"
	@echo "make clean   remove what the other targets made"

demo: $(VENV)/demo.stamp
	$(BIN)/saga demo

test: $(VENV)/dev.stamp
	@rm -f .coverage .coverage.*
	$(PYTEST) $(TIMELESS) --cov=saga --cov-branch --cov-report=
	$(BIN)/python -m coverage report --include="$(PURE_FILES)" --fail-under=100
	$(PYTEST) $(TIMELESS:%=--ignore=%)

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest --quiet tests/unit/test_house.py

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks

chaos: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m chaos -rs tests

# A lock is whole, so nothing is resolved (--no-deps): resolving, older pips take a newer release for a package that
# another one asks for with an extra, and then refuse it since it has no hash. `pip check` says if something is missing.
# The stamps say "installed from this lock". While the environment is being changed, .venv/incomplete stands in it with the
# number of the process that changes it: what an interrupted run left behind is thrown away, and so is an environment
# without a working pip.
define install
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/python3" if sys.version_info < (3, 11) else 0)'
	@if kill -0 "$$(cat $(VENV)/incomplete 2>/dev/null)" 2>/dev/null; then \
		echo "another make is installing into $(VENV) (if not: make clean)"; exit 1; \
	elif [ -e $(VENV)/incomplete ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		rm -rf $(VENV) && mkdir $(VENV) && echo $$PPID >$(VENV)/incomplete && $(PYTHON) -m venv $(VENV); \
	else \
		echo $$PPID >$(VENV)/incomplete; \
	fi
	@echo "Installing $< into $(VENV)"
	@$(PIP) install --require-hashes --no-deps --requirement $<
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@$(BIN)/python -m pip --disable-pip-version-check check
	@rm $(VENV)/incomplete
endef

# requirements/dev.txt holds all of requirements/demo.txt, in the same versions.
$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml
	$(install)
	@touch $(VENV)/demo.stamp $@

$(VENV)/demo.stamp: requirements/demo.txt pyproject.toml
	$(install)
	@touch $@

# Universal (every platform, Python 3.11 and newer), with hashes, without the address of any index.
LOCK_VENV := .venv-lock
COMPILE = $(LOCK_VENV)/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade) --extra cli --extra services --group build

lock: $(LOCK_VENV)/uv.stamp
	$(COMPILE) --extra otel --extra postgres --extra prometheus --extra redis --group test --group lint --output-file requirements/dev.txt
	$(COMPILE) --constraint requirements/dev.txt --output-file requirements/demo.txt
	@if grep -nE '(https?|file)://|^-|^ +# via -r /' requirements/*.txt; then echo "a lock names an address"; exit 1; fi

$(LOCK_VENV)/uv.stamp: Makefile
	@$(PYTHON) -m venv --clear $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python -m pip --disable-pip-version-check --quiet install uv==0.13.9
	@touch $@

clean:
	rm -rf $(VENV) $(LOCK_VENV) .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
