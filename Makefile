# Everything works on a fresh machine: each target makes the virtual environment if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := hatch_build.py $(wildcard workers/plait_workers/kernels/native/*)

.PHONY: install test check demo chaos clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(KERNELS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster,demo,dev]'
	@touch $(STAMP)

# Byte code first: the tests start hundreds of processes. With PYTHONDONTWRITEBYTECODE each would compile ours anew.
test: $(STAMP)
	$(BIN)/python -m compileall -q client workers service tests demo
	$(BIN)/python -m pytest -n 2

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: $(STAMP)
	$(BIN)/python demo/run.py

chaos: $(STAMP)
	$(BIN)/python -m pytest -m chaos --timeout=3600

clean:
	rm -rf $(VENV) demo/run .mypy_cache .ruff_cache .import_linter_cache
