# What people and CI run. Needs only Python 3.11 or later and make; everything else goes into .venv.
# `make` alone lists the targets.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?=
ARGS ?=
UPGRADE ?=

# Of the caller's pip settings, addresses, proxies and certificates count. These would install something else,
# or somewhere else, than the lock says.
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_REQUIREMENT PIP_EDITABLE PIP_CONSTRAINT PIP_BUILD_CONSTRAINT
unexport PIP_NO_DEPS PIP_NO_BINARY PIP_ONLY_BINARY PIP_PRE PIP_DRY_RUN PIP_REPORT PIP_IGNORE_INSTALLED
unexport PIP_UPGRADE PIP_REQUIRE_HASHES PIP_NO_BUILD_ISOLATION PIP_USE_PEP517 PIP_PLATFORM PIP_PYTHON_VERSION
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV __PYVENV_LAUNCHER__
export PIP_USER := 0
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

python := .venv/bin/python
pip_install := $(python) -m pip install --quiet --quiet
# The S3 clients that tests run, those in JavaScript where node is; and what tests of the pages need of npm.
clients := .venv/.clients $(if $(and $(shell command -v node),$(shell command -v npm)),.venv/.node .venv/.browser)

# A .venv that was copied or moved here, or whose interpreter is gone, is made anew.
venv_state := $(shell test "$$(cat .venv/.made 2>/dev/null)" = "$$(pwd -P)" && $(python) -c '' 2>/dev/null && echo good)
ifneq ($(venv_state),good)
.PHONY: .venv/.made
endif

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: up
up: .venv/.embedded ## Start everything here, without containers; Ctrl-C stops it
	@exec $(python) -m safelight up

# Two files of tests at a time. What failed is asked once more, alone: the run tells both, and a test that passes only
# alone is to be mended. Then the fault tests, two at a time, because they wait most of the time; and alone what asks how
# fast a backlog is worked off. Those have no second chance.
chaos_test := tests/faults/test_chaos.py
run_fault_tests = $(python) -m pytest -n 2 --dist load tests/faults --ignore=$(chaos_test) && \
	$(python) -m pytest $(chaos_test)
define run_tests
@$(python) -m pytest -n 2 --dist loadfile --ignore=tests/faults $(1); others=$$?; \
	if [ $$others = 1 ]; then \
		echo "What failed is asked once more, alone:"; \
		$(python) -m pytest --last-failed --last-failed-no-failures none --ignore=tests/faults $(1); others=$$?; \
	fi; \
	$(run_fault_tests) && exit $$others
endef

.PHONY: test
test: .venv/.dev $(clients) ## All tests, with ruff and mypy among them (ARGS="-k name" chooses)
	$(if $(ARGS),@$(python) -m pytest $(ARGS),$(call run_tests,))

.PHONY: check
check: .venv/.dev $(clients) ## ruff, mypy and the import rules first, then all tests
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) -m pytest -q tests/unit/test_import_rules.py
	$(call run_tests,--ignore=tests/quality)

.PHONY: chaos
chaos: .venv/.dev ## The fault tests (ARGS="-k row_08" chooses, SEED=n repeats); SECONDS=60: a random run of faults instead
	@$(if $(SECONDS),$(python) -m tests.faults.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)),\
		$(if $(ARGS),$(python) -m pytest tests/faults $(ARGS),$(run_fault_tests)))

.PHONY: bench
bench: .venv/.dev ## Measure: every script in benchmarks/
	@for script in benchmarks/[a-z]*.py; do \
		name=$$(basename "$$script" .py); echo "== $$name"; $(python) -m "benchmarks.$$name" || exit 1; done

# program:package, as Debian names it
ceph := radosgw:radosgw ceph-mon:ceph-mon ceph-osd:ceph-osd ceph:ceph-common
tools := chromium:chromium promtool:prometheus exiftool:libimage-exiftool-perl node:nodejs npm:npm $(ceph)

# Installs what is missing of the pairs in $(1).
define need
@missing=; for pair in $(1); do \
		command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "Missing (Debian package names):$$missing. There is no apt-get here; install them by hand." >&2; exit 1; fi; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "Missing:$$missing. Installing needs root: sudo make $@" >&2; exit 1; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -q && apt-get install -q -y --no-install-recommends $$missing
endef

.PHONY: test-tools
test-tools: ## Install the programs that some tests need (Debian, as root): chromium, promtool, exiftool, node, Ceph
	$(call need,$(tools))
	@echo "Everything that the tests need is here."

.PHONY: test-rgw
test-rgw: .venv/.dev $(clients) ## The tests against Ceph's S3 server alone; installs it (Debian, as root)
	$(call need,$(ceph))
	@$(python) -m pytest -m needs_ceph $(ARGS)

lock_options = --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --system-certs --quiet \
	$(UPGRADE)
lock_command = echo 'setuptools>=77' | $(python) -m uv pip compile pyproject.toml - $(lock_options)

.PHONY: lock
lock: .venv/.dev ## Write the lock files anew after a change in pyproject.toml (UPGRADE=--upgrade for newer releases)
	$(lock_command) -o requirements.txt
	$(lock_command) --extra embedded -o requirements-embedded.txt
	$(lock_command) --extra embedded --extra dev -o requirements-dev.txt
	$(python) -m uv pip compile tests/clients/requirements.in $(lock_options) -o tests/clients/requirements.txt
	@if command -v npm >/dev/null; then for folder in tests/clients/js tests/browser/js; do (cd $$folder && \
		npm $(if $(UPGRADE),update,install) --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved); done; \
		else echo "npm is absent: the package-lock.json files stay as they are." >&2; fi

.PHONY: clean
clean: ## Remove .venv and caches (photos and keys in .safelight stay)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist safelight.egg-info
	find . -name __pycache__ -type d -not -path './.safelight/*' -prune -exec rm -rf {} +

.venv/.made:
	@set -e; tried=; chosen=; \
	for name in $(PYTHON) $(if $(PYTHON),,python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3 \
			/usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 /usr/bin/python3.14); do \
		verdict=$$("$$name" -c 'import sys; old = sys.version_info < (3, 11); \
			print("is older than 3.11") if old else (__import__("venv"), __import__("ensurepip"), print("good"))' \
			2>/dev/null) || verdict="is absent, or lacks venv or ensurepip"; \
		if [ "$$verdict" = good ]; then chosen="$$name"; break; fi; \
		tried="$$tried\n  $$name $$verdict"; \
	done; \
	if [ -z "$$chosen" ]; then \
		printf "No suitable Python. Needed: 3.11 or later with venv and ensurepip.$$tried\n" >&2; \
		echo "Debian, Ubuntu: apt-get install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "Making .venv with $$("$$chosen" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
	"$$chosen" -m venv --clear .venv; \
	pwd -P > .venv/.made

# Wheels only, but for pyvips, which has none. It is built with the locked build tools, and without pkgconfig: so it
# cannot find a libvips of the machine's, and binds to the one of pyvips-binary.
define install
@echo "Installing what $(1) locks (the first time takes a minute or two) ..."
@awk '/^[a-z]/ {wanted = /^(setuptools|cffi|pycparser)==/} wanted' $(1) > .venv/build.txt
@$(pip_install) --require-hashes --only-binary :all: -r .venv/build.txt
@$(pip_install) --require-hashes --only-binary :all: --no-binary pyvips --no-build-isolation -r $(1)
@$(pip_install) --no-deps --no-build-isolation --editable .
@touch $@
endef

.venv/.embedded: .venv/.made requirements-embedded.txt pyproject.toml
	$(call install,requirements-embedded.txt)

.venv/.dev: .venv/.made requirements-dev.txt pyproject.toml
	$(call install,requirements-dev.txt)

# Apart from .dev: their boto3 is not the one that aioboto3 pins.
.venv/.clients: .venv/.made tests/clients/requirements.txt
	@echo "Installing the S3 clients that tests/clients/requirements.txt locks ..."
	@$(python) -m venv --clear .venv/clients
	@.venv/clients/bin/python -m pip install --quiet --quiet --require-hashes --only-binary :all: \
		-r tests/clients/requirements.txt
	@touch $@

.venv/.node: .venv/.made tests/clients/js/package.json tests/clients/js/package-lock.json
	@echo "Installing the S3 clients that tests/clients/js/package-lock.json locks ..."
	@rm -rf .venv/node
	@mkdir .venv/node
	@cp tests/clients/js/package.json tests/clients/js/package-lock.json .venv/node/
	@cd .venv/node && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null
	@touch $@

.venv/.browser: .venv/.made tests/browser/js/package.json tests/browser/js/package-lock.json
	@echo "Installing what tests/browser/js/package-lock.json locks ..."
	@rm -rf .venv/browser
	@mkdir .venv/browser
	@cp tests/browser/js/package.json tests/browser/js/package-lock.json .venv/browser/
	@cd .venv/browser && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null
	@touch $@
