# `make demo` and `make test` do all their own set-up, once: only Python >= 3.11 and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs bench clean

demo: $(VENV)/.demo
	$(BIN)/kshot demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2  # two threads of torch in each of two processes are many times slower

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What is generated from the code: the tables, the cards and the picture.
docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

# Speed, as ratios in one run; EnvPool, which it compares with, takes 700 MB.
bench: $(VENV)/.dev
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/speed.py --json benchmarks/speed.json

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: $(BIN)/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(BIN)/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) runs
