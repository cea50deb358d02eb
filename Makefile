# srsd: what to type. The virtual environment is .venv, made from $(PYTHON); scripts/make-venv keeps it current.

PYTHON ?= python3
SRS_DOMAIN ?=
export PYTHON SRS_DOMAIN

BIN := .venv/bin
COVERAGE := --cov=srsd --cov-branch
# Those that compute, or wait for a Postfix of their own: as many at once as there are cores. The rest measures
# time and memory, and is alone.
# The longest first.
SIDE_BY_SIDE := $(filter-out tests/e2e/test_interruptions.py,$(wildcard tests/e2e/test_*.py)) \
	tests/differential tests/conformance tests/property tests/unit

.PHONY: help run test coverage demo lint bench bench-milter stored fuzz bare-root clean venv-run venv-test

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo "  PYTHON=python3.12 picks another Python, SRS_DOMAIN=example.org the domain of rewritten addresses"

run: venv-run ## start srsd on loopback, with everything it needs in ./var
	@$(BIN)/python scripts/run.py

test: ## install what the tests need, then lint, types and every test
	@scripts/install-test-deps
	@$(MAKE) --no-print-directory lint
	@PYTHONHASHSEED=0 $(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder $(SIDE_BY_SIDE)
	@$(BIN)/python -m pytest $(addprefix --ignore=,$(SIDE_BY_SIDE))

coverage: venv-test ## the tests once more, slower, and which lines of srsd none of them reaches
	@PYTHONHASHSEED=0 $(BIN)/python -m pytest $(COVERAGE) --cov-report= --numprocesses=auto --dist=loadfile --no-loadscope-reorder $(SIDE_BY_SIDE)
	@$(BIN)/python -m pytest $(COVERAGE) --cov-append --cov-report=term-missing:skip-covered \
		$(addprefix --ignore=,$(SIDE_BY_SIDE))

demo: venv-test ## one mail through a throw-away Postfix: the envelope before and after
	@$(BIN)/python scripts/demo.py

lint: venv-test ## ruff and mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: venv-test ## lookups per second and memory, beside other daemons where they are installed
	@PYTHON=$(CURDIR)/$(BIN)/python bench/run
	@$(BIN)/python bench/workers_bench.py

bench-milter: venv-test ## the milter beside OpenDKIM and others, where load clients and peers lie beside the checkout
	@$(BIN)/python bench/milter_bench.py

stored: venv-test ## 100,000 long addresses: stored, killed, reversed
	@SRSD_TEST_ADDRESSES=100000 $(BIN)/python -m pytest -q -s tests/blackbox/test_many_addresses.py

fuzz: venv-test ## the fuzz targets, each for a bounded time, then the property tests with new examples
	@$(BIN)/python tests/fuzz/run.py --seconds 20
	@HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest --numprocesses=auto tests/unit tests/property

bare-root: ## "make run" and "make test" in a bare Debian 12 made with mmdebstrap (as root)
	@$(PYTHON) scripts/bare_root.py

clean: ## remove what make and the tools made; var/ (configuration and secret) is kept
	rm -rf .venv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist htmlcov
	find . -name __pycache__ -prune -exec rm -rf {} +

venv-run venv-test: venv-%:
	@scripts/make-venv $*
