# One command each; the virtual environment is made by whichever comes first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)
# modules are compiled once, not by each of the processes that the tests start
unexport PYTHONDONTWRITEBYTECODE
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

# what is checked without running anything
define STATIC
$(BIN)/ruff check .
$(BIN)/ruff format --check .
$(BIN)/mypy --num-workers 2
$(BIN)/lint-imports --no-logo
endef

.PHONY: install demo dev docs reference monitoring check test lint bench bench-peers backfill

## .venv with the project and what it needs; every other target does this first
install: $(VENV)/.installed

## score and decide the embedded days of the three pipelines, and export the lists
demo: $(VENV)/.installed
	$(BIN)/batch-scoring backfill customer_churn 2024-01-01 2024-01-02
	$(BIN)/batch-scoring export customer_churn 2024-01-01 2024-01-02
	$(BIN)/batch-scoring backfill flight_delay 2013-07-01 2013-07-14
	$(BIN)/batch-scoring export flight_delay 2013-07-01 2013-07-14
	$(BIN)/batch-scoring backfill support_tickets 2025-03-03 2025-03-16
	$(BIN)/batch-scoring export support_tickets 2025-03-03 2025-03-16

## the Dagster UI with its daemon, on http://localhost:3000, and beside it the pages of reports/ that it links to;
## Dagster's warning that its own command has a successor tells a user nothing
dev: $(VENV)/.installed
	PYTHONWARNINGS='ignore:Function `dev_command` is superseded' \
	$(BIN)/python -m batch_scoring.cli.report_server $(BIN)/dagster dev -w workspace.yaml

## make backfill PIPELINE=flight_delay FROM=2013-07-01 TO=2013-07-14
backfill: $(VENV)/.installed
	$(BIN)/batch-scoring backfill $(PIPELINE) $(FROM) $(TO)

## the inner loop, in at most 90 seconds on 2 cores: linters, types, imports and the fast tests
check: $(VENV)/.test-installed
	$(STATIC)
	$(BIN)/pytest -n 2 --dist worksteal -m fast $(PYTEST_OPTIONS)

## linters, type checker and the whole test suite
test: $(VENV)/.test-installed lint
	$(BIN)/pytest -n 4 --dist worksteal $(PYTEST_OPTIONS)

lint: $(VENV)/.test-installed
	$(STATIC)
	$(SITE) build --strict --quiet

## the documentation on http://localhost:8000
docs: $(VENV)/.docs-installed
	$(SITE) serve

## write the pages of docs/reference/ that are generated from the code
reference: $(VENV)/.installed
	$(BIN)/python -m docs.reference.generate

## write the files of deploy/monitoring/ that are generated from the code
monitoring: $(VENV)/.installed
	$(BIN)/python -m batch_scoring.metrics.watchers.deployment

## the tables of benchmarks/ that need nothing beside the project
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.engine --rows 1000000 --contenders pandas classic
	$(BIN)/python -m benchmarks.limit
	$(BIN)/python -m benchmarks.limit --rows 200000 --model wide
	$(BIN)/python -m benchmarks.forward
	$(BIN)/python -m benchmarks.day
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.materialize
	$(BIN)/python -m benchmarks.instruction_sets
	$(BIN)/python -m benchmarks.texts
	$(BIN)/python -m benchmarks.rejected
	$(BIN)/python -m benchmarks.decisions

## the engine side by side with its peers, each table within 15 minutes on 2 cores
bench-peers: $(VENV)/.bench-installed
	$(BIN)/python -m benchmarks.engine --rows 1000000
	$(BIN)/python -m benchmarks.engine --rows 10000000 --contenders polars daft pandas
	$(BIN)/python -m benchmarks.engine --rows 10000000 --contenders classic ray spark
	$(BIN)/python -m benchmarks.engine --rows 1000000 --format csv
	$(BIN)/python -m benchmarks.engine --rows 500000 --model wide
	$(BIN)/python -m benchmarks.engine --rows 200000 --model transformer
	$(BIN)/python -m benchmarks.decisions

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[text]
	touch $@

$(VENV)/.%-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[$*]
	touch $@
