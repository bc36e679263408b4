# make demo          the demonstration on handwritten digits; report in demo-report/
# make test          the tests
# make test-lowest   those of them that other libraries matter to, with the lowest versions that pyproject.toml allows
# make test-app      those of `hybridclf app`, whose gradio takes no Pillow 13, in an environment of their own
# make test-s3       those of batches on a local S3 server, whose libraries take an older python-dateutil, likewise
# make lint          ruff and mypy
# make docs          the documentation, in docs/_build/html; warnings are errors
# make bench         speed and cost beside the published procedure, about 10 minutes on two cores; ARGS="--profile full"
# make clean         remove all that was generated, except the environments
#
# Each makes .venv (test-lowest: .venv-lowest, test-app: .venv-app, test-s3: .venv-s3) when it is missing: with uv when it is on the PATH, else with venv and pip.
# PYTHON=python3.12 chooses the interpreter; ARGS="…" is handed on to demo, tests, docs or bench.

PYTHON ?=
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
LOWEST := .venv-lowest
APP := .venv-app
S3 := .venv-s3
LOWEST_TESTS := $(addprefix tests/,adapters batch/test_inputs.py cli data/test_arrays.py data/test_image_files.py demo/test_plots.py serving test_persistence.py)
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)

.PHONY: demo test test-lowest test-app test-s3 lint docs bench clean
.DELETE_ON_ERROR:

# The tests start some fifty processes: what the first of them compiles is kept for the others.
unexport PYTHONDONTWRITEBYTECODE

demo: $(INSTALLED)
	$(BIN)/hybridclf demo --out demo-report $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

# Old libraries are warned of by newer ones that they use: here that is no error.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -o filterwarnings=default --disable-warnings $(LOWEST_TESTS) $(ARGS)

test-app: $(APP)/.installed
	$(APP)/bin/python -m pytest tests/app $(ARGS)

test-s3: $(S3)/.installed
	$(S3)/bin/python -m pytest tests/batch/test_s3.py $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html $(ARGS)

bench: $(INSTALLED)
	$(BIN)/python benchmarks/speed.py $(ARGS)

clean:
	rm -rf build dist docs/_build docs/gallery docs/api/generated *.egg-info adapters/*.egg-info demo-report .pytest_cache .ruff_cache .mypy_cache
	find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.docs: $(INSTALLED)
ifeq ($(UV),)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[docs]' -c constraints.txt
else
	uv pip install --python $(BIN)/python -e '.[docs]' -c constraints.txt
endif
	@touch $@

ENVIRONMENTS := .venv $(LOWEST) $(APP) $(S3)
EXTRA := dev

ifeq ($(UV),)
$(ENVIRONMENTS:%=%/bin/python): python = $(or $(PYTHON),python3)
$(ENVIRONMENTS:%=%/bin/python): %/bin/python:
	@$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; choose one with: make PYTHON=python3.12 …")'
	$(python) -m venv --clear $*
else
$(ENVIRONMENTS:%=%/bin/python): %/bin/python:
	uv venv --clear $(if $(PYTHON),--python $(PYTHON)) $*
endif

.venv/.installed: constraints.txt
$(LOWEST)/.installed: constraints-lowest.txt
$(APP)/.installed: EXTRA := dev-app
$(APP)/.installed: $(APP)/constraints.txt
$(APP)/constraints.txt: constraints.txt | $(APP)/bin/python
	grep -v '^pillow==' $< >$@
$(S3)/.installed: EXTRA := dev-s3
$(S3)/.installed: $(S3)/constraints.txt
$(S3)/constraints.txt: constraints.txt | $(S3)/bin/python
	grep -v '^python-dateutil==' $< >$@
$(ENVIRONMENTS:%=%/.installed): %/.installed: pyproject.toml | %/bin/python
ifeq ($(UV),)
	@$*/bin/python -m pip --version >/dev/null 2>&1 || $*/bin/python -m ensurepip
	$*/bin/python -m pip install --disable-pip-version-check -e '.[$(EXTRA)]' -c $(filter %.txt,$^)
else
	uv pip install --python $*/bin/python -e '.[$(EXTRA)]' -c $(filter %.txt,$^)
endif
	@touch $@
