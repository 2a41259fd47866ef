# Every target builds its own .venv when it is missing and never touches the system.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test test-slow check bench clean

demo: $(STAMP)
	$(BIN)/fieldmark demo

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

check: $(STAMP)
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy

bench: $(STAMP)
	@status=0; for file in bench/*.py; do \
	  echo "== $$file"; $(BIN)/python $$file || status=1; done; exit $$status

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .mypy_cache

# pip >= 25.1 reads [dependency-groups]; the stamp makes a broken install start again.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $(STAMP)
