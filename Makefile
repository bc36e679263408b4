# make demo    the demonstration on handwritten digits; report in demo-report/
# make test    the tests
# make lint    ruff and mypy
# make bench   speed and cost beside the published procedure, about 10 minutes on two cores; ARGS="--profile full"
# make clean   remove all that was generated, except .venv
#
# Each makes .venv when it is missing: with uv when it is on the PATH, else with venv and pip.
# PYTHON=python3.12 chooses the interpreter; ARGS="…" is handed on to demo, test or bench.

PYTHON ?=
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)

.PHONY: demo test lint bench clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/hybridclf demo --out demo-report $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/speed.py $(ARGS)

clean:
	rm -rf build dist *.egg-info adapters/*.egg-info demo-report .pytest_cache .ruff_cache .mypy_cache
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

ifeq ($(UV),)
$(BIN)/python: python = $(or $(PYTHON),python3)
$(BIN)/python:
	@$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; choose one with: make PYTHON=python3.12 …")'
	$(python) -m venv --clear .venv
else
$(BIN)/python:
	uv venv --clear $(if $(PYTHON),--python $(PYTHON)) .venv
endif

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
ifeq ($(UV),)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[plot,dev]' -c constraints.txt
else
	uv pip install --python $(BIN)/python -e '.[plot,dev]' -c constraints.txt
endif
	@touch $@
