# Every target does its own set-up: a machine with Python 3.10+, make and git is enough.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
SIMULATOR_PORT ?= 8787
# Most tests wait for countdowns, so more of them than cores may run at a time.
PARALLEL ?= -n 4 --dist loadfile --no-loadscope-reorder
# What takes longest for what it says; ALL=1 runs it as well.
SLOW := $(if $(ALL),,$(addprefix --ignore=tests/,chaos test_benchmarks.py unfriendly/test_at_once.py))
# What takes long and says more about us than about the versions of what we stand on.
LATEST_ONLY := $(addprefix --ignore=tests/,chaos docs examples simulator upgrades test_benchmarks.py django/test_browser.py metrics/test_workers.py \
	$(addprefix doctor/test_,broken_setups.py live.py) \
	$(addprefix security/test_,leaks.py sealing.py tls.py) \
	$(addprefix unfriendly/test_,at_once.py chances.py deaths.py outages.py paid_once.py use.py) \
	$(addprefix unit/test_,costs.py estimating.py flights.py history.py hooks.py index.py policy.py prices.py reading.py requests.py results.py \
	rounds.py sending.py) \
	$(addprefix workers/test_,account.py adopting.py another_chance.py cli.py hooks.py in_flight.py killed_chances.py looks.py many_batches.py recovery.py \
	redis_restart.py resuming.py stops.py))
SEEDS ?= 200
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

.PHONY: help demo simulator test test-lowest chaos bench screenshots docs lint audit format clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed  ## Run one job from beginning to end on embedded parts, no key or Docker needed
	$(VENV)/bin/claude-batch demo $(ARGS)

simulator: $(VENV)/.installed  ## Serve Anthropic's Message Batches API locally
	$(VENV)/bin/claude-batch simulator --port $(SIMULATOR_PORT) $(ARGS)

test: $(VENV)/.installed  ## Run the tests on the latest supported versions; ALL=1: some chaos and the benchmarks as well
	$(VENV)/bin/python -m pytest $(PARALLEL) $(SLOW) $(ARGS)

test-lowest: $(LOWEST)/.installed  ## Run the tests on the lowest supported versions
	$(LOWEST)/bin/python -m pytest $(PARALLEL) $(LATEST_ONLY) $(ARGS)

chaos: $(VENV)/.installed  ## Kill workers at every crash point under bad weather; SEEDS=1000, FIRST=0, PROCESSES=2
	$(VENV)/bin/python -m tests.chaos --seeds $(SEEDS) --first $(FIRST) --processes $(PROCESSES) $(ARGS)

screenshots: $(VENV)/.installed  ## Make the images in docs/images from real runs; needs chromium
	$(VENV)/bin/python docs/screenshots.py

bench: $(VENV)/.installed  ## Measure submit, create, fetch and read next to baselines; ARGS="fetch --records 10000"
	$(VENV)/bin/python -m benchmarks $(ARGS)

docs: $(VENV)/.installed  ## Build the documentation, build/docs/index.html; a warning is an error
	$(VENV)/bin/sphinx-build -W --keep-going --quiet -b html docs build/docs $(ARGS)

lint: $(VENV)/.installed  ## Check style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

audit: $(VENV)/.installed  ## Look for known vulnerabilities of what we stand on; says so where that cannot be asked
	$(VENV)/bin/python .ci/audit.py

format: $(VENV)/.installed  ## Mend style and formatting
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## Remove environments and caches
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml
	$(call install,$(VENV),)

$(LOWEST)/.installed: pyproject.toml tests/constraints-lowest.txt
	$(call install,$(LOWEST),-c tests/constraints-lowest.txt)
