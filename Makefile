# Two commands do everything on a fresh machine: `make demo` and `make test`. A second call is quick.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# One thread a process: pytest runs one process a core.
export OMP_NUM_THREADS ?= 1
DATA ?= ../shared/data

.PHONY: demo test quality style bench install

demo: install
	@echo "== Scoring three built-in datasets with the embedded proxy (no network, about a minute)"
	$(VENV)/bin/hf-prism demo --output out/demo

test: install
	@echo "== Running the tests (several minutes)"
	$(RUN) -m pytest -n auto

quality: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

style: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: install
	@echo "== Sketch fidelity against a dense projection (an hour); tables go to docs/"
	$(RUN) examples/benchmarks/fidelity.py --proxy embedded
	$(RUN) examples/benchmarks/fidelity.py --proxy gpt2

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "== Making the environment $(VENV) (once, a few minutes)"
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
