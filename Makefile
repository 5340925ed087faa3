# Everything starts here: `make run` for the demonstration, `make test` for the proof.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PEERS := $(VENV)/peers-installed

.PHONY: setup run check test faults bench bench-peers format

setup: $(INSTALLED)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 is missing; install it or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11; say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and by its exact pin: a looser range pulls several GB.
$(INSTALLED): requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install "$$(grep -om1 '^torch==[^ ;]*' requirements.txt)"
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	@touch $@

run: setup
	$(BIN)/medley run $(ARGS)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py

# Two processes, of which one has the tests on Ray (tests/conftest.py).
test: check
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

# A journal's writer and learner are killed by -9 at KILLS random moments; the tests do a hundred.
faults: setup
	$(BIN)/python -m tests.kill_many $(or $(KILLS),1000)

$(PEERS): requirements-bench.txt | $(INSTALLED)
	$(BIN)/python -m pip install -r requirements-bench.txt
	@touch $@

bench: $(PEERS)
	$(BIN)/python -m benchmarks $(ARGS)

# Peers that cannot live beside us get an environment of their own, one per file benchmarks/peers/<name>.txt.
bench-peers: $(PEERS)
	@for file in $(wildcard benchmarks/peers/*.txt); do \
		name=$$(basename $$file .txt); \
		$(PYTHON) -m venv .venv-peers/$$name && .venv-peers/$$name/bin/python -m pip install -r $$file || exit 1; \
	done
