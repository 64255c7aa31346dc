# `make demo` and `make test` set up everything they need in .venv. See README.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BENCH  := $(VENV)/bench
# Torch goes in first and alone, so that the pinned build is taken and nothing larger.
TORCH  ?= torch==2.13.0
PIP    := $(BIN)/pip --disable-pip-version-check install --quiet
# Tests start many processes: each would compile all modules anew where bytecode is not kept.
unexport PYTHONDONTWRITEBYTECODE
# By worksteal a file's tests stay in one process, and so what they share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test slow torture check format lint types bench bench-gpu cuda-device clean

demo: $(VENV)/.installed
	@run=$$($(BIN)/assay train) && echo && $(BIN)/assay generate $$run --prompt "KING LEAR." --temperature 0.8

test: $(VENV)/.developed
	$(PYTEST) -m "not slow"

slow: $(VENV)/.developed
	$(PYTEST) -m slow

# The same tests of tests/torture as in `slow`, at full load: over two hours. Writes docs/reliability.md.
torture: $(VENV)/.developed
	$(PYTEST) tests/torture --torture --deselect tests/torture/test_torture_page.py
	$(BIN)/python tests/torture/reliability_page.py

check: format lint types test slow

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
	$(PIP) -c constraints.txt -e ".[lab]"
	@touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(PIP) -c constraints.txt -e ".[dev]"
	@touch $@

# Peers pin versions of their own, so they get an environment of their own. Takes about an hour.
bench: $(BENCH)/.installed
	@for part in training decoding growth memory page; do $(BENCH)/bin/python benchmarks/$$part.py || exit; done

bench-gpu: cuda-device $(BENCH)/.installed
	@for part in "training.py --shape gpu" decoding.py memory.py replicas.py; do $(BENCH)/bin/python benchmarks/$$part --device cuda || exit; done
	@$(BENCH)/bin/python benchmarks/page.py

cuda-device:
	@nvidia-smi -L 2>/dev/null | grep -q . || { echo "bench-gpu: no CUDA device found by nvidia-smi; expected one. Use make bench." >&2; exit 2; }

$(BENCH)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip --disable-pip-version-check install --quiet "$(TORCH)"
	$(BENCH)/bin/pip --disable-pip-version-check install --quiet -e ".[bench]"
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
