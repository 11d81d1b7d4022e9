# Everything here sets up what it needs in .venv: only python3 (3.11 or later) and make are taken for granted.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Without cached bytecode every start of the program costs a second more, and the tests start it often.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test torture lint quality bench samples clean

demo: $(READY)
	$(BIN)/lcbatch summarize samples/docs -o $(VENV)/demo/ --fresh
	@echo; echo "--- one of them: $(VENV)/demo/incident-checkout-outage.md.md"; echo
	@cat $(VENV)/demo/incident-checkout-outage.md.md

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Hours on a small machine. Needs strace and faketime (Debian: apt-get install strace faketime); says which cases they keep.
torture: $(READY)
	rm -f $(VENV)/torture/figures.jsonl
	TORTURE=whole $(BIN)/python -m pytest tests/torture -n 2 --dist worksteal -rs
	$(BIN)/python docs/make_reliability.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/audit.py

quality: $(READY)
	$(BIN)/python bench/quality.py

# About a quarter of an hour on an idle machine, and some minutes more the first time, when the peers are installed.
bench: $(READY)
	$(BIN)/python -m bench
	$(BIN)/python -m bench.gate

samples: $(READY)
	$(BIN)/python samples/make_documents.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("lcbatch needs Python 3.11 or later, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)
