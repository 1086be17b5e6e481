# Everything runs in .venv, which is created here with the tested versions in constraints.txt.
# Options for pip go into PIP_ARGS, for example an index of CPU-only builds of torch:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_ARGS ?=
BIN = .venv/bin
# Each worker has one thread: the tests are small, and two workers are faster than one with two threads.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal --benchmark-disable

.PHONY: demo test test-slow docs benchmark clean

demo: .venv/package
	$(BIN)/softmax-bench run --out runs/demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

test-slow: .venv/installed
	$(PYTEST) -m slow

docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[docs]'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/sphinx-build -q -W --keep-going docs build/site
	SOFTMAX_BENCH_SITE=build/site $(BIN)/pytest -q tests/docs/test_site.py
	@echo "Pages: build/site/index.html"

benchmark: .venv/installed
	$(BIN)/pytest --benchmark-only

.venv/package: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "Python's venv module is not complete; on Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

.venv/installed: .venv/package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
