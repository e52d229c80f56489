PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PROCESSES ?= 3

.PHONY: train test coverage test-lowest drill campaign mutate docs dist release-check

# Train and test HTP-GAN on the embedded data; ends with the metrics and the folders of the heat maps.
train: $(INSTALLED)
	$(BIN)/anomalib train --model htpgan --data TextureDefects --config configs/htpgan/quick.yaml
	@echo "Heat maps:"
	@cd results/HtpGan/TextureDefects && find -L */latest/images -mindepth 1 -type d | sed "s|^|$$PWD/|" | sort

# Lint, types and every test, the slow ones too. One thread a process, and one process more than the two cores: tests wait
# for the programs and kills that they start. On more cores, say PROCESSES=9. Warnings of the libraries would push the
# failures out of a shortened log.
test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PROCESSES) --dist worksteal --disable-warnings

# Every test, and then the share of our lines that they ran in their own process; fails below 90 %.
coverage: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PROCESSES) --dist worksteal --disable-warnings \
		--cov=anomalib_defect_plugins --cov-report=term:skip-covered --cov-fail-under=90

# Hurts each model while it trains, and writes what came of it to docs/fault-drill.md.
drill: $(INSTALLED)
	$(BIN)/python -W ignore tools/fault_drill.py --out docs/fault-drill.md

# Thousands of bad inputs; writes how many were tried to docs/fault-drill.md.
campaign: $(INSTALLED)
	BAD_INPUT_PROFILE=campaign BAD_INPUT_PAGE=docs/fault-drill.md OMP_NUM_THREADS=1 \
		$(BIN)/pytest -s --disable-warnings tests/faults/test_bad_input_campaign.py

# Changes a line of each loss, and writes which test notices to docs/fault-drill.md.
mutate: $(INSTALLED)
	$(BIN)/python tools/mutation.py --out docs/fault-drill.md

# The lowest versions of our dependencies, and a choice of tests.
test-lowest: $(INSTALLED)
	.ci/test-lowest

# The reference of the Python interface, from its docstrings: build/docs/index.html.
docs: $(INSTALLED)
	$(BIN)/python docs/reference.py

# Wheel and source distribution, in dist/, fit to be uploaded.
dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# Each of them installed and tried in a clean environment.
release-check: dist
	PYTHON=$(PYTHON) .ci/release-check

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable ".[dev]"
	touch $@
