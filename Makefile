# make: what can be made. Everything runs in .venv, which is made from requirements.lock once.
.DEFAULT_GOAL := help
.PHONY: help venv demo bench test test-gpu test-demo test-fast test-slurm test-faults smoke paper dag readme docs lint format clean distclean

PYTHON ?= python3
CORES ?= all
STUDY ?= demo
SNAKEMAKE := .venv/bin/snakemake
IMPORTS := import snakemake.cli, peft, pyarrow.parquet, seaborn, sklearn.linear_model, sklearn.pipeline, \
	telepathy.methods.bridge; from transformers import Gemma3ForCausalLM, LlamaForCausalLM
export PYTHONDONTWRITEBYTECODE := 1

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

venv: .venv/installed  ## make .venv from requirements.lock

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# What jobs import is compiled by importing it once: pip would compile all there is, on one core. Some containers
	@# keep Python from writing what it compiled, and then every job would compile it anew.
	@env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c "$(IMPORTS)"
	@touch $@

demo: .venv/installed  ## train bridges between two small models and print the table (minutes)
	$(SNAKEMAKE) --profile profiles/demo --cores $(CORES) --quiet rules --config study=$(STUDY)
	@.venv/bin/telepathy show results/$(STUDY)

bench: .venv/installed  ## measure speed against the plain way (results/demo/speed.csv; the demo first)
	$(SNAKEMAKE) --profile profiles/demo --cores $(CORES) --quiet rules --forcerun measure_speed -- results/demo/speed.csv
	@cat results/demo/speed.csv

smoke: .venv/installed  ## every rule once on a handful of examples (a minute or two)
	$(SNAKEMAKE) --profile profiles/demo --cores $(CORES) --quiet rules --config study=smoke
	@.venv/bin/telepathy show results/smoke

# Tests of paper and page need programs that pip cannot install.
ABSENT := $(if $(shell command -v pdftotext >/dev/null && command -v pdflatex),,latex) $(if $(shell command -v chromedriver),,browser)
UNSEEN := $(patsubst %,and not %,$(ABSENT))
# Two workers share the files of tests, in order: what a file makes for all its tests is made once. The workflow's, the longest,
# come first, so that no worker waits at the end; the studies that they read are made before, on all cores.
PYTEST := .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: .venv/installed  ## run all tests but those of the whole demo, of clusters and faults
	@[ -z "$(strip $(ABSENT))" ] || echo "Tests of $(strip $(ABSENT)) are left out: apt-get install texlive-latex-recommended texlive-fonts-recommended lmodern poppler-utils chromium-driver"
	$(SNAKEMAKE) --profile profiles/demo --cores $(CORES) --quiet rules --config study=smoke
	$(SNAKEMAKE) --profile profiles/demo --cores $(CORES) --quiet rules --config study=demo_slice
	$(PYTEST) -m "not demo and not slurm and not faults and not quiet $(UNSEEN)" tests/workflow tests/unit
	$(MAKE) --no-print-directory test-gpu
	.venv/bin/python -m pytest -m quiet tests/workflow

test-gpu: .venv/installed  ## run what differs on a GPU on one that the CPU emulates (needs g++)
	@if .venv/bin/python -m tests.emulated_gpu.emulator; then $(PYTEST) tests/emulated_gpu; fi

test-demo: .venv/installed  ## run the tests of what the whole demo shows (the demo first)
	.venv/bin/python -m pytest -m demo tests/workflow

test-slurm: .venv/installed  ## run the study through a real SLURM on this machine (needs root and its packages)
	.venv/bin/python -m pytest -m slurm tests/slurm

test-faults: .venv/installed  ## kill, fill disks, flip bits (needs root; TELEPATHY_KILLS=5 for fewer kills)
	$(PYTEST) -m faults tests/faults

test-fast: .venv/installed  ## run the tests that need no real models, no LaTeX, no browser, no cluster
	$(PYTEST) -m "not slow and not demo and not latex and not browser and not slurm and not faults and not quiet"

paper: .venv/installed  ## list every job of the paper's study (a dry run; the README says how to run it)
	$(SNAKEMAKE) --dry-run --quiet rules

dag: docs/dag.svg  ## draw the demo's rules (needs Graphviz)

readme: .venv/installed  ## write the demo's tables into the README
	.venv/bin/telepathy insert results/demo README.md

docs: .venv/installed  ## write the reference of all settings from the schemas
	.venv/bin/telepathy reference docs/configuration.md

docs/dag.svg: .venv/installed Snakefile config.yaml $(wildcard rules/*.smk)
	@command -v dot >/dev/null || { echo "Graphviz is needed for the picture: apt-get install graphviz"; exit 1; }
	@mkdir -p docs
	$(SNAKEMAKE) --config study=demo --forceall --rulegraph dot | dot -Tsvg > $@

lint: .venv/installed  ## check style, types and workflow
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile rules
	.venv/bin/mypy
	$(SNAKEMAKE) --lint

format: .venv/installed  ## rewrite the code in the house's style
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/snakefmt Snakefile rules

clean:  ## remove results and logs (models, data and .venv stay)
	rm -rf results logs resources/features resources/checkpoints

distclean: clean  ## remove everything that was made
	rm -rf resources .venv .snakemake
