# make demo   sets up .venv, embeds the sample, fits, exports, searches
# make test   sets up the same, runs the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
TYPES := build/types

.PHONY: demo test lint types clean

# The build warns of editable installs as such.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/python examples/demo.py

# One thread each for two workers; a file's tests stay together, since they share what they embed.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# stores/ and cli/ are protalign.stores and protalign.cli: show the type checker the installed layout.
types: .venv/installed
	rm -rf $(TYPES) && mkdir -p $(TYPES)/protalign
	ln -s $(CURDIR)/protalign/* $(CURDIR)/stores $(CURDIR)/cli $(TYPES)/protalign/
	MYPYPATH=$(TYPES) $(BIN)/mypy -p protalign

clean:
	rm -rf .venv build dist demo
