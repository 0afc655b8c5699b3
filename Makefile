# make demo   sets up .venv, embeds the sample, fits, exports, searches
# make test   sets up the same .venv and runs the tests, all but tests/reliability and those marked
#             as slow (CI runs them too); TESTS=... for a part of them or options:
#             make test TESTS="tests/stores -x"
# make reliability  kills, damage, hostile files, full disks and fuzzed inputs at full size: hours;
#             what was counted goes to the table of docs/reliability.md. For less:
#             make reliability SIZE=3 FUZZ=500 ROWS=tests/reliability/test_kills.py
# make bench  measures against peers and writes docs/performance.md; by hand, on a quiet machine:
#             make bench PROTEINS=pdbbind/ WEIGHTS=esm2_t6_8M_UR50D.pt (default: sample, random weights)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test reliability bench lint types clean

# The build warns about editable installs.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

TESTS ?= -m "not slow" --ignore=tests/reliability

# Three workers for two cores, since tests also wait; one thread each. The tests of a file run
# together, since they share what they embed.
# Compiled modules are kept, also where the environment says otherwise: tests start many processes.
test: $(INSTALLED)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

SIZE ?= 10
FUZZ ?= 5000

ROWS ?= tests/reliability tests/reading/test_fuzz.py
COUNTED := benchmarks/results/reliability

reliability: $(INSTALLED)
	RELIABILITY=$(SIZE) PROTALIGN_FUZZ=$(FUZZ) RELIABILITY_RESULTS=$(COUNTED) OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -p tests.reliability.recording $(ROWS); \
	ended=$$?; $(BIN)/python benchmarks/reliability.py; exit $$ended

PROTEINS ?= examples/sample
WEIGHTS ?=
SIZES ?= 1000 10000 100000
STORE_GB ?= 2
# Stores of real proteins for residue_fit.py; none: made-up proteins.
STORES ?=
MEMORY_GB ?= 1
RESULTS := benchmarks/results
THREADS ?= 2
BENCH = OMP_NUM_THREADS=$(THREADS) $(BIN)/python benchmarks/speed
ESM2_8M := $(if $(WEIGHTS),--weights $(WEIGHTS))

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BENCH)/pooling.py --threads $(THREADS) --json $(RESULTS)/pooling.json
	$(BENCH)/esm2.py --threads $(THREADS) --proteins $(PROTEINS) $(ESM2_8M) --json $(RESULTS)/esm2-8M.json
	$(BENCH)/esm2.py --threads $(THREADS) --model esm2_t30_150M_UR50D --residues 3000 --turns 3 --proteins $(PROTEINS) --json $(RESULTS)/esm2-150M.json
	$(BENCH)/proteinmpnn.py --threads $(THREADS) --proteins $(PROTEINS) --json $(RESULTS)/proteinmpnn.json
	$(BENCH)/store.py --threads $(THREADS) --json $(RESULTS)/store.json
	$(BENCH)/search.py --threads $(THREADS) --json $(RESULTS)/search.json
	$(BENCH)/vectors.py --threads $(THREADS) --json $(RESULTS)/vectors.json
	$(BENCH)/residues.py --threads $(THREADS) --json $(RESULTS)/residues.json
	$(BENCH)/residue_fit.py $(STORES) --threads $(THREADS) --json $(RESULTS)/residue_fit.json
	$(BENCH)/words.py --threads $(THREADS) --json $(RESULTS)/words.json
	$(BENCH)/reading.py $(PROTEINS) --json $(RESULTS)/reading.json
	$(BENCH)/embed.py --threads $(THREADS) --proteins $(PROTEINS) $(ESM2_8M) --json $(RESULTS)/embed.json
	$(BENCH)/larger_than_memory.py --threads $(THREADS) --store-gb $(STORE_GB) --memory-gb $(MEMORY_GB) --json $(RESULTS)/larger_than_memory.json
	$(BENCH)/shuffling.py --threads $(THREADS) --json $(RESULTS)/shuffling.json
	$(BENCH)/scaling.py --threads $(THREADS) --sizes $(SIZES) --json $(RESULTS)/scaling.json
	$(BENCH)/serve.py --threads $(THREADS) --json $(RESULTS)/serve.json
	$(BENCH)/gpu.py --json $(RESULTS)/gpu.json
	$(BIN)/python benchmarks/report.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy -p protalign

clean:
	rm -rf .venv build dist demo
