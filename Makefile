# `make demo` and `make test` set up everything they need in .venv. See README.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Torch goes in first and alone, so that the pinned build is taken and nothing larger.
TORCH  ?= torch==2.13.0
PIP    := $(BIN)/pip --disable-pip-version-check install --quiet

.PHONY: demo test quick check format lint types bench clean

demo: $(VENV)/.installed
	@run=$$($(BIN)/assay train) && echo && $(BIN)/assay generate $$run --prompt "KING LEAR." --temperature 0.8

test: $(VENV)/.developed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

quick: $(VENV)/.developed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

check: format lint types test

format: $(VENV)/.developed
	$(BIN)/ruff format --check .

lint: $(VENV)/.developed
	$(BIN)/ruff check .

types: $(VENV)/.developed
	$(BIN)/mypy

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)"
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(PIP) -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
