# Two commands do everything on a fresh machine: `make demo` and `make test`. A second call is quick.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# One thread a process: pytest runs one process a core.
export OMP_NUM_THREADS ?= 1
DATA ?= ../shared/data

.PHONY: demo test quality style bench soak study-small install

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

# All cores, whatever OMP_NUM_THREADS says; the tables name the number of threads. Times are those of two cores.
BENCH = env -u OMP_NUM_THREADS $(RUN) examples/benchmarks

bench: $(VENV)/bench-installed
	@echo "== Benchmarks (a day on two cores); JSON files go to out/benchmarks/"
	$(BENCH)/fidelity.py --proxy embedded                 # half an hour
	$(BENCH)/fidelity.py --proxy gpt2                     # half an hour
	$(BENCH)/speed.py --dtype float32                     # 15 minutes, most of it TRAK's and bergson's projections
	$(BENCH)/speed.py --dtype bfloat16                    # 15 minutes
	$(BENCH)/speed.py --shape 0.5b --dtype float32        # half an hour
	$(BENCH)/speed.py --shape 0.5b --dtype bfloat16       # 20 minutes
	$(BENCH)/memory.py                                    # 3 minutes
	$(BENCH)/memory.py --shape 0.5b                       # 10 minutes
	$(BENCH)/memory.py --long 8192 16384 32768            # 15 minutes
	$(BENCH)/memory.py --shape 0.5b --layers 2 --long 8192 16384 32768    # half an hour
	$(BENCH)/clustering.py                                # an hour
	$(BENCH)/million.py                                   # 10 minutes
	$(BENCH)/comparison.py                                # 10 minutes
	$(BENCH)/selection.py                                 # most of an hour
	$(BENCH)/redundancy.py                                # 2 minutes
	$(BENCH)/redundancy.py --draws 10                     # 5 minutes
	$(BENCH)/decontamination.py --sweep                   # some minutes
	$(RUN) examples/train_embedded.py --seed 1 --width 128 --float32 --minutes 14 --output out/second_proxy
	$(BENCH)/synthesis.py --second-proxy out/second_proxy # half an hour
	$(BENCH)/students.py                                  # an hour

soak: install
	@echo "== Killing runs at random moments and comparing what is left with an uninterrupted run (some minutes)"
	$(RUN) tests/soak.py
	$(RUN) tests/soak_synthesis.py

study-small: install
	@echo "== Every tenth run of the published studies, again, and compared"
	$(RUN) examples/study/reproduce.py --output runs/study_small

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "== Making the environment $(VENV) (once, a few minutes)"
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/bench-installed: $(VENV)/installed
	@echo "== Adding the libraries that the benchmarks compare with"
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@touch $@
