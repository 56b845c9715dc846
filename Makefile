# Every target sets up what it needs: a virtual environment with the pinned versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs
READY := $(VENV)/.ready

.PHONY: reproduce claims first-experiments findings test test-slow test-faults test-cuda test-app app lint clean

reproduce: $(READY)  ## the main job: Dyck pretraining and needle in a haystack
	$(BIN)/procpre-interp reproduce --out $(OUT)

claims: $(READY)  ## every claim: the runs that it still needs, its verdict, experiments/results/claims
	$(BIN)/procpre-interp claims --run --store $(OUT) --results experiments/results/claims

first-experiments: $(READY)  ## union and real text: what the paper suggests to try first
	$(BIN)/python experiments/first_experiments.py --out $(OUT) --until-decided --primary-only

findings: $(READY)  ## the tables of experiments/README.md, made anew from the stored results
	$(BIN)/procpre-interp claims --format markdown --update experiments/README.md

test: $(READY)  ## the fast suite
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.extras  ## what takes minutes; with lm-eval, trackers, a Ray of two nodes, and S3
	$(BIN)/python -m pytest -m slow

KILLS ?= 50

test-faults: $(READY)  ## kill -9 at many moments of each kind of work (KILLS=50); minutes
	PROCPRE_KILLS=$(KILLS) $(BIN)/python -m pytest -m faults

test-cuda: $(READY)  ## what a GPU must do as the CPU does
	$(BIN)/python -m pytest -m cuda -rs tests/test_cuda*.py

test-app: $(VENV)/.browser  ## the explorer in a real browser; screenshots go to screenshots/
	$(BIN)/python -m pytest -m browser tests/browser

app: $(READY)  ## the explorer, on this machine only
	$(BIN)/procpre-interp app --store $(OUT)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# torch goes first and alone, at its pinned version, before anything else can ask for another.
$(READY): pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Playwright drives the system's chromium; where there is none, apt-get brings it (as root), or a line says so.
$(VENV)/.browser: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,browser]'
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	    || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	    || { echo "install chromium first: make test-app drives it" >&2; exit 1; }
	touch $@

$(VENV)/.extras: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,evaluation,tracking,ray,slurm,s3]' 'moto[server]'
	touch $@

clean:
	rm -rf $(VENV)
