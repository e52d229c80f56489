PYTHON ?= python3
BIN := .venv/bin
# Some containers set it. Then each process compiles all modules again: an import of anomalib takes 19 s instead of 7.
unexport PYTHONDONTWRITEBYTECODE
INSTALLED := .venv/.installed
PROCESSES ?= 3

# Each process has one thread, and there is one process more than the two cores, because some tests wait for child processes.
# On more cores, set PROCESSES, for example PROCESSES=9. The tests of a file share fixtures, so they run in one process; the
# slow files come first. Warnings are disabled so that those of libraries do not push failures out of a truncated log.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --disable-warnings

.PHONY: train test test-all lint fast-tests all-tests coverage test-lowest drill campaign mutate docs dist release-check

# Train and test HTP-GAN on the embedded data; print the metrics and the folders of the heat maps.
train: $(INSTALLED)
	$(BIN)/anomalib train --model htpgan --data TextureDefects --config configs/htpgan/quick.yaml
	@echo "Heat maps:"
	@cd results/HtpGan/TextureDefects && find -L */latest/images -mindepth 1 -type d | sed "s|^|$$PWD/|" | sort

# Linter, type checker and the fast tests, at the same time.
test: $(INSTALLED)
	$(MAKE) -j2 lint fast-tests

# Linter, type checker and all tests; with SELECT="not long", as in continuous integration, without variations.
test-all: lint all-tests

fast-tests: $(INSTALLED)
	$(PYTEST) -m "not slow and not faults"

all-tests: $(INSTALLED)
	$(PYTEST) $(if $(SELECT),-m "$(SELECT)")

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

# All tests with a coverage report, which does not include child processes; fails below 95 %.
coverage: $(INSTALLED)
	$(PYTEST) --cov=anomalib_defect_plugins --cov-report=term:skip-covered --cov-fail-under=95

# Train each model under injected faults; update docs/fault-drill.md.
drill: $(INSTALLED)
	$(BIN)/python -W ignore tools/fault_drill.py --out docs/fault-drill.md

# Test thousands of invalid inputs; update their numbers in docs/fault-drill.md.
campaign: $(INSTALLED)
	BAD_INPUT_PROFILE=campaign BAD_INPUT_PAGE=docs/fault-drill.md OMP_NUM_THREADS=1 \
		$(BIN)/pytest -s --disable-warnings --timeout 0 \
		tests/faults/test_bad_input_campaign.py tests/faults/test_checkpoint_campaign.py

# Mutation tests of the losses; update docs/fault-drill.md.
mutate: $(INSTALLED)
	$(BIN)/python tools/mutation.py --out docs/fault-drill.md

# A subset of the tests with the lowest supported versions of all dependencies.
test-lowest: $(INSTALLED)
	.ci/test-lowest

# The documentation site, build/docs/index.html; fails at a broken link.
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/python docs/pages.py
	$(BIN)/zensical build --clean --strict

# Build wheel and source distribution in dist/ and check them for upload.
dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# Install each distribution in a clean environment and test it.
release-check: dist
	PYTHON=$(PYTHON) .ci/release-check

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install "pip>=25.1"
	$(BIN)/python -m pip install --editable . --group dev
	touch $@
