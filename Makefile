# Everything runs in .venv, which the first target that needs it makes from requirements.lock.
PYTHON ?= python3
UV_VERSION := 0.13.8
RTX_VERSION ?=
VENV := .venv
BIN := $(VENV)/bin
SWEEP := $(BIN)/sweep
ARGS ?=
RESULTS ?= results
PORT ?= 5000
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 2) # of the tests that run side by side: they often wait
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_SYSTEM_CERTS := 1

.DEFAULT_GOAL := help
.PHONY: help install install-rtx install-trt-names demo sweep plan ui publish cache doctor test torture test-loadgen test-gpu bench bench-gpu bench-stats bench-compare bench-search fuzz lint types layers check docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed ## make .venv with everything that is needed, at the locked versions

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sweep needs Python 3.11 or later, $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=/path/to/python3.11 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: on Debian and Ubuntu, apt-get install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install -q "uv==$(UV_VERSION)"
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

install-rtx: install ## TensorRT-RTX from PyPI, the newest that this GPU loads, or RTX_VERSION=...: builds anywhere
	@version="$(RTX_VERSION)"; \
	  [ -n "$$version" ] || version=$$($(BIN)/python -m sweep.backends.tensorrt.rtx_releases) || exit 2; \
	  $(BIN)/uv pip install -q --python $(BIN)/python "tensorrt-rtx==$$version" "cuda-python==13.*" "nvidia-ml-py>=12.560"

install-trt-names: install ## the APIs of TensorRT 10 and 11, without their engines: names are tested against them
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps tensorrt-stubs==10.13.0.35.1 \
	  tensorrt-lean-cu13-bindings==11.4.0.106 tensorrt-lean-cu13-libs==11.4.0.106

demo: install ## from nothing to curves: a trained network in fp16 and int8, batch 1, 8, 32, on this machine
	$(SWEEP) -m model=digits precision=fp16,int8 batch=1,8,32

sweep: install ## run a sweep: make sweep ARGS="-m precision=fp16,int8 batch=1,8"
	$(SWEEP) $(ARGS)

plan: install ## what a sweep would run, and how long: make plan ARGS="-m batch=1,8"
	$(SWEEP) $(ARGS) plan=true

ui: install ## MLflow's pages over the records published to results/, at http://127.0.0.1:$(PORT)
	$(SWEEP) ui $(RESULTS) --port $(PORT) $(ARGS)

publish: install ## send every record in results/ to MLflow; twice changes nothing
	$(SWEEP) publish $(RESULTS) $(ARGS)

cache: install ## models, ONNX and engines on disk: make cache ARGS="prune --to-gib 5" makes room
	$(SWEEP) cache $(ARGS) $(RESULTS)

doctor: install ## what this machine can do, and the command for what is missing
	$(SWEEP) doctor $(RESULTS)

test: install ## the tests; none needs a GPU
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -m "alone and not gpu and not loadgen" tests/e2e
	$(BIN)/python -m pytest -m "not alone and not gpu and not loadgen" -n $(WORKERS) --dist worksteal
else
	$(BIN)/python -m pytest -m "not gpu and not loadgen" $(ARGS)
endif

torture: install ## sweeps, MLflow servers and PostgreSQL killed at random moments: make torture ARGS=500, half an hour
	$(BIN)/python tests/e2e/kill_campaign.py --servers --fresh 0.05 --kills $(or $(strip $(ARGS)),500)

test-loadgen: install ## beside MLPerf LoadGen on one session, 3 to 9 minutes; wants a calm machine, and fails without one
	SWEEP_REQUIRE=loadgen,calm $(BIN)/python -m pytest -m loadgen -s tests/loadgen $(ARGS)

test-gpu: install ## the tests that need an NVIDIA GPU and TensorRT or TensorRT-RTX; -s shows the figures
	SWEEP_REQUIRE=gpu $(BIN)/python -m pytest -m "" tests/gpu tests/contract $(ARGS)

bench: install ## what the load generator and the executor themselves cost; wants a calm machine
	$(BIN)/python tests/bench/generator.py $(ARGS)
	PYTHONPATH=. $(BIN)/python tests/bench/executor.py

bench-gpu: install ## what the loops cost against C, on an NVIDIA GPU: make bench-gpu ARGS="--json FILE"
	$(BIN)/python tests/bench/bench_gpu.py $(ARGS)

bench-stats: install ## the tables of docs/evidence/statistics.md: make bench-stats ARGS="400 marks peak --jobs 16 --json FILE"
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=.:tests/support $(BIN)/python tests/statistics/study.py $(ARGS)

bench-compare: install ## real comparisons, equal and slowed: make bench-compare ARGS="--backend tensorrt_rtx --count 20"
	$(BIN)/python tests/bench/compare_campaign.py $(ARGS)

bench-search: install ## searches replayed on published grids: make bench-search ARGS="--replays 200 --jobs 2 --json FILE"
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/bench/bench_search.py $(ARGS)

fuzz: install ## broken and hostile contents at every door that reads: make fuzz ARGS=100000
	PYTHONPATH=.:tests/support $(BIN)/python tests/fuzz/run.py $(ARGS)

lint: install ## ruff, all rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy, strict
	$(BIN)/mypy

layers: install ## the direction of imports
	$(BIN)/lint-imports --no-cache

check: lint types layers test ## what CI runs

docs: install ## the docs site, build/docs/index.html: searched without a network; a broken link is an error
	$(BIN)/sphinx-build -E -W --keep-going -q -b html docs build/docs
	@echo "docs     $(abspath build/docs/index.html)"

lock: install ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile -q --universal -p 3.11 --generate-hashes --group dev --no-emit-index-url \
	  --custom-compile-command "make lock" --upgrade pyproject.toml -o requirements.lock

clean: ## remove .venv and caches; results stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
