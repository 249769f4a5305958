# Everything is called as `.venv/bin/python -m ...`: scripts break in folders with spaces.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo incident test lint lock clean

PYTHON ?= python3
SERVE ?= 1
ARGS ?=
UPGRADE ?=
WORKERS ?= 2
export PYTHON SERVE
# Containers often set it; then each of the suite's hundred processes compiles every library anew.
unexport PYTHONDONTWRITEBYTECODE

help:  ## Show this list.
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:[^#]*## /: /' | awk -F': ' '{printf "make %-8s %s\n", $$1, $$2}'

setup:  ## Make .venv from requirements-dev.lock (nothing to do the second time).
	@sh tools/setup.sh </dev/null

demo: setup  ## Run the main job on real data, then serve the UI (SERVE=0 ends after the checks).
	@exec .venv/bin/python -m demo </dev/null

incident: setup  ## Replay 2 a.m. on the real data, broken in eleven ways (ARGS="NAME" narrows it).
	@exec .venv/bin/python -m demo.incident $(ARGS) </dev/null

test: setup  ## Run the whole test suite (ARGS="-k name" narrows it, WORKERS=0 runs one by one).
	@exec .venv/bin/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS) </dev/null

lint: setup  ## Check style, formatting and types.
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy

lock:  ## Write the locks again from pyproject.toml (UPGRADE=1 takes the newest versions).
	@sh tools/setup.sh lock $(if $(UPGRADE),--upgrade) </dev/null

clean:  ## Remove .venv, the demo's data and every cache.
	@! [ -x .venv/bin/lockstep ] || ! [ -d .lockstep/redis ] || .venv/bin/lockstep down </dev/null
	@rm -rf .venv .lockstep .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
