# Needs Python 3.11 or newer with pip, make and git; everything else is installed into .venv.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Test processes; each one imports dagster and mlflow, which takes seconds and about 500 MB.
JOBS ?= 2

# Where `make dev` and `make demo` keep Dagster's runs. Dagster insists on an absolute path.
DAGSTER_HOME ?= $(CURDIR)/data/dagster
export DAGSTER_HOME

# No usage statistics: the first two are read by MLflow and Evidently, the last by Dagster, which
# also needs its own file (see $(DAGSTER_HOME)/dagster.yaml below).
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export DAGSTER_DISABLE_TELEMETRY := 1

# Events of a range of partitions are stored together; resources/event_log.py says why.
export DAGSTER_EVENT_BATCH_SIZE ?= 1000

.PHONY: help
help:
	@echo 'make install    create .venv with the locked dependencies'
	@echo 'make demo       run the platform end to end on a public data set'
	@echo 'make dev        serve the Dagster UI on http://127.0.0.1:3000'
	@echo 'make serve      answer prediction requests on http://127.0.0.1:8080'
	@echo 'make test       run the tests that take little time'
	@echo 'make test-all   run all tests but those of make test-exhaustive'
	@echo 'make test-spark run the tests of engine spark, which it installs'
	@echo 'make check      lint, formatting, types, import contracts'
	@echo 'make screenshots take the images of docs, after make demo'
	@echo 'make figures    compare what docs quote of the demo, after make demo'
	@echo 'make mutants    plant faults and see which the tests find'
	@echo 'make bench      run the benchmarks'
	@echo 'make airflow    create .venv-airflow, for the example of a published pipeline'
	@echo 'make clients    create .venv-clients, for the test of clients that are generated'
	@echo 'make protos     regenerate ml_platform/open_inference from its .proto'
	@echo 'make docs       build the docs as a site with a search in site/'
	@echo 'make lock       recompile requirements/*.txt from pyproject.toml'

.PHONY: install
install: $(STAMP)

# python3 first: the interpreter a person expects. The others help where it is too old. Debian
# leaves ensurepip out of its Python unless python3-venv is installed; its pip can fill in.
$(BIN)/python:
	@for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Python 3.11 or newer is needed and none was found on the PATH." >&2; \
	  echo "Name one with: make install PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	if "$$found" -c 'import ensurepip' 2>/dev/null; then \
	  "$$found" -m venv $(VENV); \
	else \
	  "$$found" -m venv --without-pip $(VENV) && \
	  "$$found" -m pip --python $(BIN)/python install --quiet pip; \
	fi || { rm -rf $(VENV); exit 1; }

# Runs an installer without its output, which is shown where it fails.
QUIETLY = quietly() { \
	  log=$$(mktemp) || return 1; \
	  if "$$@" >"$$log" 2>&1; then rm -f "$$log"; else cat "$$log" >&2; rm -f "$$log"; return 1; fi; \
	}; quietly

# An environment of its own: $(call made_from,FOLDER,LOCK).
define made_from
@$(BIN)/python -m venv --without-pip $(1)
@$(QUIETLY) $(BIN)/uv pip install --python $(1)/bin/python --require-hashes -r $(2) || \
  quietly $(BIN)/python -m pip --python $(1)/bin/python install --require-hashes -r $(2)
endef

# uv installs in seconds what takes pip minutes. pip takes over where uv cannot be had, or where it
# cannot reach the packages because only pip is set up for the local index. Compiled at once, as pip
# does it: where PYTHONDONTWRITEBYTECODE is set, each process would compile all that it imports.
$(STAMP): $(BIN)/python requirements/dev.txt requirements/uv.txt pyproject.toml
	@echo 'Installing what requirements/dev.txt lists into $(VENV), which takes a few minutes.'
	@if $(QUIETLY) $(BIN)/python -m pip install --require-hashes -r requirements/uv.txt && \
	    quietly $(BIN)/uv pip install --python $(BIN)/python --compile-bytecode \
	        --require-hashes -r requirements/dev.txt; \
	then :; else \
	  echo 'uv could not install the dependencies; trying pip, which takes longer.' >&2; \
	  quietly $(BIN)/python -m pip install --require-hashes -r requirements/dev.txt; \
	fi
	@# Only links this checkout into the environment; its build backend is in dev.txt.
	@$(QUIETLY) $(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

$(DAGSTER_HOME)/dagster.yaml: deploy/dagster.yaml
	@mkdir -p "$(@D)"
	@# Whole or not there: make takes a file that is there for one that is done.
	@cp deploy/dagster.yaml "$@.unfinished" && mv "$@.unfinished" "$@"

.PHONY: demo
demo: $(STAMP) $(DAGSTER_HOME)/dagster.yaml
	@$(BIN)/python -m demo

# The images in docs/images, over what the demo has made: all of them, or those that IMAGES names.
.PHONY: screenshots
screenshots: $(STAMP)
	$(BIN)/python -m demo.screenshots $(IMAGES)

.PHONY: figures
figures: $(STAMP)
	@$(BIN)/python -m demo.figures

# With the code locations of use cases that have environments of their own, where there are any.
ENVIRONMENTS := $(or $(ML_PLATFORM_ENVIRONMENTS),.venvs)
WORKSPACES = $(if $(wildcard $(ENVIRONMENTS)/workspace.yaml),-w workspace.yaml -w $(ENVIRONMENTS)/workspace.yaml)

# Nobody has to click toggles first: sensors, schedules and automation are on.
dev: export ML_PLATFORM_AUTOMATION ?= true
.PHONY: dev
dev: $(STAMP) $(DAGSTER_HOME)/dagster.yaml
	@echo 'Starting Dagster on http://127.0.0.1:3000; Ctrl-C ends it.'
	@$(BIN)/ml-platform pages & pages=$$!; $(BIN)/ml-platform keep-loaded & loaded=$$!; \
	trap 'kill $$pages $$loaded' EXIT INT TERM; \
	$(BIN)/dg dev --host 127.0.0.1 --port 3000 $(WORKSPACES)

# loadscope keeps a module's tests in one process, so its expensive fixtures are built once;
# tests/conftest.py says in which order modules are taken.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder

# Predictions over HTTP on port 8080 and gRPC on 8081, by the champions of `make demo`.
.PHONY: serve
serve: $(STAMP)
	@$(BIN)/ml-platform serve

.PHONY: test
test: $(STAMP)
	$(PYTEST) -m 'not slow and not exhaustive'

# Slow tests wait for servers much of their time, so one more runs than there are cores.
.PHONY: test-all
test-all: $(STAMP)
	$(PYTEST) -n $$(($(JOBS) + 1)) -m 'not exhaustive'

# Spark is 480 MB, so it is installed for those who ask for it. `make test-all` runs its tests where it
# is, `make test-spark` also the example on a cluster.
SPARK := $(VENV)/.spark
.PHONY: install-spark
install-spark: $(SPARK)

$(SPARK): $(STAMP) requirements/spark.txt
	@echo 'Installing Spark, 480 MB, into $(VENV).'
	@$(QUIETLY) $(BIN)/uv pip install --python $(BIN)/python --require-hashes \
	    -r requirements/spark.txt || \
	  quietly $(BIN)/python -m pip install --require-hashes -r requirements/spark.txt
	@touch $@

.PHONY: test-spark
test-spark: $(SPARK)
	$(PYTEST) -m spark

# Every two commands that overlap, all variants of slow tests, all examples of properties;
# `make test-all` takes some of each.
.PHONY: test-exhaustive
test-exhaustive: $(STAMP)
	$(PYTEST) -m 'exhaustive or hypothesis'

# Airflow in an environment of its own, which calls the service in the example of a published
# pipeline and in its test.
.PHONY: airflow
airflow: .venv-airflow/.installed

.venv-airflow/.installed: $(STAMP) requirements/airflow.txt
	@echo 'Installing Airflow, 211 MB, into .venv-airflow.'
	$(call made_from,.venv-airflow,requirements/airflow.txt)
	@touch $@

# What generates clients from openapi.json, in Python and in TypeScript, for the test of it.
.PHONY: clients
clients: .venv-clients/.installed

.venv-clients/.installed: $(STAMP) requirements/clients.txt
	@echo 'Installing generators of clients into .venv-clients.'
	$(call made_from,.venv-clients,requirements/clients.txt)
	@if command -v npm >/dev/null; then npm install --silent --no-fund --no-audit \
	    --prefix .venv-clients openapi-typescript@7 openapi-fetch@0.15 typescript@5 @types/node@20; fi
	@touch $@

# What containers run (docs/deployment.md). `make images BUILDER=buildah REGISTRY=… VERSION=…`;
# IMAGE_ARGS has more arguments, as for another base: '--build-arg BASE=…'.
BUILDER ?= docker
REGISTRY ?= ml-platform
VERSION ?= 1
CONTAINERS ?= code_location service mlflow proxy
.PHONY: images
images:
	set -e; for name in $(CONTAINERS); do \
	  $(BUILDER) build -f deploy/images/$$name.Dockerfile \
	    --build-arg CODE_COMMIT=$$(git rev-parse HEAD) $(IMAGE_ARGS) \
	    -t $(REGISTRY)/$$name:$(VERSION) .; \
	done

# The docs, README and the API reference as a site. Its generator has an environment of its own, and
# reads the docstrings without importing anything, so that it needs none of the dependencies.
.PHONY: docs
docs: .venv-docs/.installed
	.venv-docs/bin/python docs/pages.py
	.venv-docs/bin/zensical build --clean --strict

.venv-docs/.installed: requirements/docs.txt | $(BIN)/python
	$(BIN)/python -m venv --without-pip .venv-docs
	$(BIN)/python -m pip --python .venv-docs/bin/python install --quiet --require-hashes \
	    -r requirements/docs.txt
	@touch $@

# Faults planted in the modules in which one is silent, and whether the tests see them. It takes
# hours; `make mutants MUTANTS=training/verdict` looks at one module.
.PHONY: mutants
mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/mutants.txt
	$(BIN)/python -m benchmarks.mutants --jobs $(JOBS) $(MUTANTS)

.PHONY: check
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The lake of this release, which every later one has to open: see docs/upgrades.md.
VERSION = $(shell $(BIN)/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
.PHONY: fixture-lake
fixture-lake: $(STAMP)
	PYTHONPATH=$(CURDIR) $(BIN)/python tests/release_lake.py tests/fixtures/lakes/$(VERSION)/trips.tar.xz

# What the messages and the service of the Open Inference Protocol are in Python. It is checked in, so
# that neither `make install` nor a wheel needs a compiler; a test compares it.
.PHONY: protos
protos: $(STAMP)
	$(BIN)/python -m ml_platform.open_inference.generate

.PHONY: bench
bench: $(STAMP)
	$(BIN)/python -m benchmarks

# One version of a package for all Pythons and systems (--universal, fewest), so that what was
# tested is what others get. Extras stay in the files because pip wants them there when it checks
# hashes. dev.txt is compiled first and constrains base.txt; airflow.txt, bench.txt, bench_bento.txt,
# clients.txt and docs.txt are for environments of their own (see bench.in). To move to newer versions:
# LOCK_ARGS=--upgrade, or LOCK_ARGS='--upgrade-package mlflow'.
LOCK_ARGS ?=
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--no-strip-extras --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' \
	$(LOCK_ARGS)
EXTRAS := --extra dagster --extra serve --extra monitoring --extra postgres --extra mysql --extra adbc --extra azure --extra delta --extra iceberg --extra iceberg-azure --extra redis --extra vault --extra otel --extra demo --extra dagster-postgres --extra kubernetes --extra celery
# What the images of deploy/images can reach: databases, object stores, Redis, secrets.
CLUSTER := --extra postgres --extra mysql --extra azure --extra redis --extra vault

.PHONY: lock
lock: $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(COMPILE) $(EXTRAS) --extra dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) $(EXTRAS) -c requirements/dev.txt pyproject.toml -o requirements/base.txt
	$(COMPILE) --extra dagster --extra serve --extra monitoring --extra spark -c requirements/dev.txt pyproject.toml -o requirements/spark.txt
	$(COMPILE) --extra dagster --extra serve --extra monitoring $(CLUSTER) --extra dagster-postgres --extra kubernetes --extra celery -c requirements/dev.txt pyproject.toml -o requirements/code_location.txt
	$(COMPILE) --extra serve --extra otel $(CLUSTER) -c requirements/dev.txt pyproject.toml -o requirements/service.txt
	$(COMPILE) -c requirements/dev.txt requirements/mlflow.in -o requirements/mlflow.txt
	$(COMPILE) --group bootstrap -o requirements/uv.txt
	$(COMPILE) --group docs -o requirements/docs.txt
	$(COMPILE) --group sbom -o requirements/sbom.txt
	$(COMPILE) --group mutants -c requirements/dev.txt -o requirements/mutants.txt
	$(COMPILE) requirements/bench.in -o requirements/bench.txt
	$(COMPILE) requirements/bench_bento.in -o requirements/bench_bento.txt
	$(COMPILE) requirements/airflow.in -o requirements/airflow.txt
	$(COMPILE) requirements/clients.in -o requirements/clients.txt
