# The targets make their own virtual environment, so that no system Python is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
THREADS := OMP_WAIT_POLICY=PASSIVE

BROWSER := chromium

.PHONY: test quick test-clients ci bench real-life mutants mutation evidence damaged demo lint docs browser clean

test: $(VENV)/installed lint browser
	$(THREADS) $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Laws and rules that need no training and wait for no other process. A room that is changed is
# named beside them: make quick ROOM=tests/refinement
QUICK := tests/test_architecture.py tests/config tests/data tests/generators tests/html tests/io tests/physics
SLOW := tests/generators/test_hostile_checkpoints.py tests/generators/test_older_checkpoint.py \
  tests/io/readers/test_hostile_hdf5.py tests/io/readers/test_clients.py

quick: $(VENV)/installed
	OMP_NUM_THREADS=1 $(THREADS) $(BIN)/python -m pytest -q --numprocesses 2 --durations 0 --durations-min 2 \
	  $(QUICK) $(ROOM) $(SLOW:%=--ignore=%)

mutants: $(VENV)/installed
	OMP_NUM_THREADS=1 $(THREADS) $(BIN)/python tests/mutants.py

# Every small change that mutmut knows, in the rooms of computation; ROOMS and ARGS choose, as in
# `make mutation ROOMS=physics ARGS="--sample 40"`.
mutation: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,mutation]'
	nice $(BIN)/python tests/mutation.py $(ROOMS) $(ARGS)

# Every public command on hostile inputs, with a table of what became of them; ARGS as in
# `make damaged ARGS="--inputs 3000 --seed 1"`.
damaged: $(VENV)/installed
	OMP_NUM_THREADS=1 $(THREADS) PYTHONPATH=tests/io/readers $(BIN)/python tests/damaged/sweep.py --inputs 800 --processes 2 $(ARGS)

PHASE ?= phase_c_modernization
evidence: $(VENV)/installed
	$(THREADS) $(BIN)/python tests/evidence.py $(PHASE)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The parts of the documents that are made from the code.
docs: $(VENV)/installed
	$(BIN)/python docs/command_line.py
	$(BIN)/python docs/tables.py

# The tests that look at pages need a browser; where it cannot be installed they are skipped, with that reason.
browser:
	@command -v $(BROWSER) > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(BROWSER) > /dev/null; } \
	  || echo "no $(BROWSER): the tests that open pages will be skipped"

demo: $(VENV)/installed
	$(BIN)/ptycho-torch demo --output_dir demo --overwrite

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# Other programs read what this package writes, and Ptychodus calls it. They need an environment of
# their own. The published torchvision, which Pty-Chi asks for, does not load beside a torch without
# CUDA, and Lightning fails where it is there and does not load.
CLIENTS := build/clients

test-clients: $(CLIENTS)/installed
	OMP_NUM_THREADS=1 $(THREADS) $(CLIENTS)/bin/python -m pytest tests/io/readers/test_clients.py tests/ptychodus

# For a CI service: all tests, and the clients of other programs where they can be installed soon.
CLIENTS_INSTALL_S := 300

ci: test
	@if timeout $(CLIENTS_INSTALL_S) $(MAKE) --silent $(CLIENTS)/installed; then $(MAKE) test-clients; \
	else echo "skipped: the clients of other programs were not installed within $(CLIENTS_INSTALL_S) s"; fi

$(CLIENTS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test,clients]'
	$(CLIENTS)/bin/python -c 'import torchvision' 2> /dev/null || $(CLIENTS)/bin/python -m pip uninstall --quiet --yes torchvision
	touch $@

bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(THREADS) $(BIN)/python benchmarks/speed.py
	$(THREADS) $(BIN)/python benchmarks/quality.py --output_dir build/bench

# Simulated measurements with faults, beside Pty-Chi; with SCAN, also a measured scan.
real-life: $(CLIENTS)/installed
	$(CLIENTS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	OMP_NUM_THREADS=1 $(THREADS) $(CLIENTS)/bin/python benchmarks/real_life.py --output_dir build/real_life $(if $(SCAN),--star $(SCAN))

clean:
	rm -rf $(VENV) build *.egg-info demo
