# The same targets that CI runs. `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test quick check bench soak docs clean

demo: .venv/demo.stamp  ## the main job on real input: train, predict, ensemble, backtest, report
	$(BIN)/modelyard init build/demo
	$(BIN)/modelyard up build/demo/yard.yaml --yard build/demo/.modelyard

test: .venv/dev.stamp  ## every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

quick: .venv/dev.stamp  ## the tests that take less than ten seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

check: .venv/dev.stamp  ## the static gate
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

bench: .venv/dev.stamp  ## the measurements of docs/benchmarks.md
	$(BIN)/python benchmarks/jobs.py
	$(BIN)/python benchmarks/planning.py
	$(BIN)/python benchmarks/ensemble.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tuning_race.py --algorithms random,tpe,cmaes,bayesian,optuna-tpe,optuna-gp
	$(BIN)/python benchmarks/tuning_jobs.py
	$(BIN)/python benchmarks/tuning_stopping_curves.py
	$(BIN)/python benchmarks/journal.py
	$(BIN)/python benchmarks/evidence_statistics.py

soak: .venv/dev.stamp  ## the long kill campaigns
	$(BIN)/python -m modelyard.testing.train_campaign --kills 50
	$(BIN)/python -m modelyard.testing.merge_campaign --kills 50
	$(BIN)/python -m modelyard.testing.evaluate_campaign --kills 50
	$(BIN)/python -m modelyard.testing.slurm_campaign --kills 60
	$(BIN)/python -m modelyard.testing.tune_campaign --kills 100
	$(BIN)/python -m modelyard.testing.accounts_campaign --kills 40
	$(BIN)/python -m modelyard.testing.gateway_campaign --requests 10000
	$(BIN)/python -m modelyard.testing.heads_campaign --kills 30
	$(BIN)/python -m modelyard.testing.certify_campaign --kills 50
	$(BIN)/python -m modelyard.testing.certify_campaign --kills 20 --sequential
	$(BIN)/python -m modelyard.testing.promotion_campaign --kills 100
	$(BIN)/python -m modelyard.testing.governed_campaign --kills 100

docs: .venv/dev.stamp  ## docs/reference.md from --help
	$(BIN)/python -m tests.docs.reference > docs/reference.md

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo]"
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo,dev]"
	touch $@
