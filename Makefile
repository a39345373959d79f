# Every target does its own set-up: a machine with Python 3.10+, make and git is enough.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
SIMULATOR_PORT ?= 8787
# Most tests wait for countdowns, so more of them than cores may run at a time; on a slow machine not many more.
PARALLEL ?= -n 3 --dist loadfile --no-loadscope-reorder
SEEDS ?= 200
CHAOS_SEEDS ?= 16
FIRST ?= 0
PROCESSES ?= 2

# uv takes a tenth of pip's time, and knows nothing of pip's settings: a machine that needs those has pip do it.
define install
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet --disable-pip-version-check uv
$(1)/bin/uv pip install --quiet --compile-bytecode --python $(1)/bin/python $(2) -e '.[dev]' || \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2) -e '.[dev]'
touch $@
endef

.PHONY: help demo simulator test coverage test-slow test-release test-lowest test-postgres chaos conformance compat bench screenshots newcomer docs lint shape audit \
	format clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed  ## Run one job from beginning to end on embedded parts, no key or Docker needed
	$(VENV)/bin/claude-batch demo $(ARGS)

simulator: $(VENV)/.installed  ## Serve Anthropic's Message Batches API locally
	$(VENV)/bin/claude-batch simulator --port $(SIMULATOR_PORT) $(ARGS)

test: $(VENV)/.installed  ## Run the tests on the latest supported versions
	$(VENV)/bin/python -m pytest $(PARALLEL) -m "not slow and not release" $(ARGS)

coverage: $(VENV)/.installed  ## Print how much of the package the last `make test-lowest` ran, worst first; fail under the floor
	$(VENV)/bin/coverage report $(ARGS)

test-slow: $(VENV)/.installed  ## Run what takes long: chaos, outages, stops, frameworks, every kind of account, pages and examples
	CHAOS_SEEDS=$(CHAOS_SEEDS) $(VENV)/bin/python -m pytest $(PARALLEL) -m "slow and not release" $(ARGS)

test-postgres: $(VENV)/.installed  ## Run what shows that workers need no particular store, with the store on PostgreSQL
	STORE=postgres $(VENV)/bin/python -m pytest $(PARALLEL) -m every_store $(ARGS)

test-release: $(VENV)/.installed  ## Run the rest: every option of Celery's with every broker and pool, benchmarks
	$(VENV)/bin/python -m pytest $(PARALLEL) -m release $(ARGS)

test-lowest: $(LOWEST)/.installed  ## Run what needs no workers on the lowest supported versions, and count what they run
	$(LOWEST)/bin/python -m pytest $(PARALLEL) --cov --cov-report= --cov-fail-under=0 -m "not slow and not release and not latest and not workers" $(ARGS)

chaos: $(VENV)/.installed  ## Kill workers at every crash point under bad weather; SEEDS=1000, FIRST=0, PROCESSES=2, ARGS=--mixed
	$(VENV)/bin/python -m tests.chaos --seeds $(SEEDS) --first $(FIRST) --processes $(PROCESSES) $(ARGS)

conformance: $(VENV)/.installed  ## Run a plain task and run_batch side by side, and write docs/reference/celery.md; ARGS="redis-prefork"
	$(VENV)/bin/python -m tests.conformance $(ARGS)

compat: $(VENV)/.installed  ## Run other clients on the simulator, and write docs/reference/compatibility.md; needs npm; ARGS="batchlane"
	$(VENV)/bin/python -m tests.compat --write $(ARGS)

screenshots: $(VENV)/.installed  ## Make the images in docs/images from real runs; needs chromium
	$(VENV)/bin/python docs/screenshots.py

bench: $(VENV)/.installed  ## Measure submit, create, fetch and read next to baselines; ARGS="fetch --records 10000"
	$(VENV)/bin/python -m benchmarks $(ARGS)

newcomer: $(VENV)/.installed  ## Install the wheel alone, and follow the pages that begin from zero word by word; ARGS=README.md
	$(VENV)/bin/python tools/newcomer.py $(ARGS)

docs: $(VENV)/.installed  ## Build the documentation, build/docs/index.html; a warning is an error
	$(VENV)/bin/sphinx-build -W --keep-going --quiet -b html docs build/docs $(ARGS)

lint: $(VENV)/.installed  ## Check style, formatting, types, layers, shape and the lines of Markdown
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python tools/shape.py --check
	$(VENV)/bin/python tools/sentence_lines.py --check

shape: $(VENV)/.installed  ## Print the shape of the package as figures; ARGS="--show circles"
	$(VENV)/bin/python tools/shape.py $(ARGS)

audit: $(VENV)/.installed  ## Look for known vulnerabilities of what we stand on; says so where that cannot be asked
	$(VENV)/bin/python .ci/audit.py

format: $(VENV)/.installed  ## Mend style and formatting, of Markdown too
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/python tools/sentence_lines.py

clean:  ## Remove environments and caches
	rm -rf $(VENV) $(LOWEST) .compat build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml
	$(call install,$(VENV),)

$(LOWEST)/.installed: pyproject.toml tests/constraints-lowest.txt
	$(call install,$(LOWEST),-c tests/constraints-lowest.txt)
