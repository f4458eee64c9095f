# One door, few words. `make` alone checks and tests; every word sets up what it needs.
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
KEEP ?=
ROUNDS ?= 10

.PHONY: all setup setup-dev check fix test fuzz demo docs conformance bench bench-privacy bench-connector tck-dsp tck-dcp interop-edc clean

all: check test

setup: $(STAMP)  ## what the demo needs

$(STAMP): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv -q --allow-existing $(VENV) && uv pip install -q --python $(PY) -c constraints.txt -e .; \
	else \
	  python3 -m venv $(VENV) && $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e .; \
	fi
	@touch $@

setup-dev: $(DEV)

$(DEV): $(STAMP)
	@if command -v uv >/dev/null 2>&1; then \
	  uv pip install -q --python $(PY) -c constraints.txt -e ".[dev,bench]"; \
	else \
	  $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev,bench]"; \
	fi
	@touch $@

check: $(DEV)  ## style, types, floors, generated docs, spelling
	$(VENV)/bin/ruff format --check src tests benchmarks scripts
	$(VENV)/bin/ruff check src tests benchmarks scripts
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) scripts/generate_docs.py --check
	$(VENV)/bin/codespell src docs README.md CHANGELOG.md tests/*.py

fix: $(DEV)  ## repair what can be repaired
	$(VENV)/bin/ruff format src tests benchmarks scripts
	$(VENV)/bin/ruff check --fix src tests benchmarks scripts
	$(PY) scripts/generate_docs.py

# Tests of the mathematics and the law run side by side; those with nodes, ports and clocks one after the other.
PURE := tests/analysis tests/governance tests/privacy

test: $(DEV)  ## all tests; PostgreSQL too where its server is installed
	$(VENV)/bin/pytest -n auto --maxprocesses 8 $(PURE)
	scripts/with_postgres.sh $(VENV)/bin/pytest $(PURE:%=--ignore=%)

fuzz: $(DEV)  ## the tests that draw at random, with new draws, ROUNDS times (10)
	for round in $$(seq $(ROUNDS)); do IHDS_FUZZ=1 $(VENV)/bin/pytest -q $$(grep -rl hypothesis tests --include="test_*.py") || exit 1; done

demo: $(STAMP)  ## the main job, whole; KEEP=1 leaves the nodes running
	@exec $(PY) -m ihds.demo $(if $(KEEP),--keep)

docs: $(DEV)  ## write the generated pages anew
	$(PY) scripts/generate_docs.py

conformance: $(DEV)  ## every method against R on real patients; CHECK=1 only compares
	PYTHONPATH=. $(PY) scripts/conformance.py $(if $(CHECK),--check)

bench: $(DEV)  ## ratios against peers in the same run
	$(PY) benchmarks/run.py
	$(PY) benchmarks/methods.py

bench-privacy: $(DEV)  ## secure sums against a plain sum and Flower's SecAgg+ in the same run (installs flwr below .cache)
	$(PY) benchmarks/privacy.py

bench-connector: $(DEV)  ## the connector against Eclipse EDC in the same run (Java 17, Maven)
	$(PY) benchmarks/connector.py

tck-dsp: $(DEV)  ## the official Dataspace Protocol kit, three runs in a row (Java 17, Maven)
	$(PY) scripts/tck.py dsp --runs 3

tck-dcp: $(DEV)  ## the official Decentralized Claims Protocol kit, every role (Java 17, Maven)
	$(PY) scripts/tck.py dcp

interop-edc: $(DEV)  ## all pairings with a real Eclipse EDC (Java 17, Maven)
	$(PY) scripts/interop_edc.py

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
