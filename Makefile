# `make help` lists what there is. Each command makes .venv from the lock first, where it is missing or older than the lock.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PY := .venv/bin/python
BIN := .venv/bin
ENV := .venv/.complete
WORKERS ?= 2
PYTEST := $(BIN)/pytest
# What `make generate` writes; verified to be committed.
GENERATED := crds docs/reference docs/methods.md charts/finetune-operator/crds deploy tests/chart/snapshots

.PHONY: help env demo demo-down demo-local assets test test-catalogue test-resume failures bench bench-learning bench-methods generate verify lint format lock report-check clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  make %-16s %s\n", $$1, $$2 }'

$(ENV): requirements.lock pyproject.toml scripts/bootstrap.sh
	@scripts/bootstrap.sh

env: $(ENV) ## Make .venv from requirements.lock

assets: $(ENV) ## Fetch and convert the demo's models and data into the cache
	@$(PY) -m scripts.demo_assets

demo: $(ENV) ## The whole product: a Kubernetes on this machine, the operator, and a real model through two stages
	@$(PY) -m scripts.demo

demo-down: $(ENV) ## End the demo's cluster, and remove it
	@$(PY) -m tests.cluster down .cache/demo-cluster

demo-local: $(ENV) ## The trainer alone, without a cluster: the same job by `finetune run` (about 10 minutes)
	@$(PY) -m scripts.demo.local

test: $(ENV) verify ## Run every check and test, with a real control plane and real pods
	@$(PY) -m scripts.demo_assets
	@$(PY) -m tests.report_check
	@$(PY) -m tests.cluster.prepare
	@$(PY) -m tests.again -n $(WORKERS) --dist loadgroup --ignore tests/node $(ARGS)
	@# By itself: its pods train on all cores, and would starve the control planes of other tests.
	@$(PY) -m tests.again tests/node $(ARGS)

test-catalogue: $(ENV) ## Try every cell of the support table of methods, allowed and refused, on five tiny architectures
	@FINETUNE_CATALOGUE=all $(PYTEST) -n $(WORKERS) tests/unit/methods $(ARGS)

test-resume: $(ENV) ## The long test of exact resume: 20 kills a configuration
	@FINETUNE_KILLS=20 $(PYTEST) -n $(WORKERS) tests/resume $(ARGS)

failures: $(ENV) ## Try every failure of the set, and its hint; print the table and write docs/reference/failures-tried.md
	@$(PY) -m tests.failures $(ARGS)

bench: $(ENV) ## Measure speed, start, memory and saves against plain scripts; print the table
	@$(PY) -m tests.bench

bench-learning: $(ENV) ## Show that domain then task beats task alone: 3 seeds of each (about an hour)
	@$(PY) -m tests.bench.learning

bench-methods: $(ENV) ## Measure the missing cells of the table of methods (hours, if all are), and put it into docs/methods.md
	@$(PY) -m tests.bench.methods
	@$(PY) -m tests.bench.methods.page

generate: $(ENV) ## Write what is generated from the code: CRDs, reference pages, the manifest of the chart (builds helm once)
	@$(PY) -m finetune_api.crd >/dev/null
	@$(PY) -m finetune_cli.reference > docs/reference/cli.md
	@$(PY) -m finetune_operator.metrics.reference > docs/reference/metrics.md
	@$(PY) -m scripts.argocd
	@$(PY) -m scripts.render_chart >/dev/null

verify: $(ENV) lint generate ## Check that generated files are committed, and every check of lint
	@if [ -n "$$(git status --porcelain -- $(GENERATED))" ]; then git --no-pager diff --stat -- $(GENERATED); git status --short -- $(GENERATED); \
	  echo "generated files differ from what is committed: run make generate, and commit them" >&2; exit 1; fi

lint: $(ENV) ## Types, style, layers, and the lengths of modules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PY) -m scripts.check_lengths

format: $(ENV) ## Format and sort imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet

lock: ## Resolve requirements.lock anew, and from it what each image installs
	$(LOCK) --upgrade --all-extras --group dev --group bench pyproject.toml --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --extra operator pyproject.toml --output-file requirements-operator.lock
	@# Never torch, nor what torch alone needs: they are the base image's.
	$(LOCK) --constraint requirements.lock --extra trainer --extra cli --override <(echo 'torch ; python_version < "3"') pyproject.toml \
	  --output-file requirements-trainer.lock
	for name in hatchling:build torch:torch; do grep -o "^$${name%:*}==[^ ]*" requirements.lock | \
	  $(LOCK) --constraint requirements.lock --output-file requirements-$${name#*:}.lock -; done

report-check: $(ENV) ## Render the report in a real browser at desk and phone width, and check its pictures
	@$(PY) -m tests.report_check $(ARGS)

clean: ## Remove the environment, caches and runs of this checkout (not the shared cache of models)
	rm -rf .venv .tools .cache build runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
