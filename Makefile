# A user's two commands: `make demo` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed

.PHONY: demo test test-slow lint bench bench-ccd clean

$(STAMP): setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

# A made-up sky on 127.0.0.1, a template of it, and what the template says about the known stars.
demo: $(STAMP)
	$(BIN)/python scripts/run_demo.py

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(STAMP)
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.further_ffis --pictures
	$(BIN)/python -m benchmarks.scheduler

bench-ccd: $(STAMP)
	$(BIN)/python -m benchmarks.ccd

clean:
	rm -rf .venv demo_sky build *.egg-info
