# `make demo` and `make test` work from a bare clone; everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTED := .venv/.tested
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# where a machine forbids it, every start compiles torch anew: half of its time
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test fast thorough lint clean

demo: $(INSTALLED)
	$(BIN)/unmask demo

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal

fast: $(TESTED)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not thorough"

# hundreds of random batches, thousands of wrong requests: what `make test` does a few times, many times over
thorough: $(TESTED)
	$(BIN)/python -m pytest -n auto --dist worksteal -m thorough

lint: $(TESTED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# the package and what the demo draws with; versions that were tested
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[plots]"
	touch $@

$(TESTED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build dist demo
