# Two commands do all the set-up: `make ecg` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A process a core, a file in one of them; one thread each, or they would wait for each other.
TESTS := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

.PHONY: ecg test test-slow lint setup clean

ecg: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/fedlit fit --config configs/ecg_fedprox.yaml

test: $(VENV)/.installed
	$(TESTS)

test-slow: $(VENV)/.installed
	$(TESTS) -m "slow and not gpu"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info runs
