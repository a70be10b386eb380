# One command per job. `demo` and `test` set up everything they need on a machine with Python 3.11.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Processes that tests run in.
JOBS ?= 2
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

.PHONY: install demo test test-all strace torture lint format lock clean

install: $(READY)

$(READY): requirements.lock requirements-headless.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --only-binary :all: -r requirements.lock
	$(PIP) --no-deps --require-hashes --only-binary :all: -r requirements-headless.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY)
	$(BIN)/slidetriage demo --out demo-out

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu"

test-all: $(READY) strace
	$(BIN)/python -m pytest -n $(JOBS)

# Plays disks that fail, and sees every socket, for the tests that are marked slow.
strace:
	@command -v strace > /dev/null || apt-get install --yes strace \
	  || echo "strace is not installed: the tests that need it say so" >&2

# Hours: kills, spoilt slides, thousands of slides, batch after batch (see benchmarks/).
torture: $(READY)
	@test -e /usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 || apt-get install --yes faketime \
	  || echo "faketime is not installed: mishaps.py says what it left out" >&2
	$(BIN)/python benchmarks/chaos.py --trials 200 --rounds 3 --doubles 20
	$(BIN)/python benchmarks/mishaps.py
	$(BIN)/python benchmarks/fuzz.py --mutants 5000
	$(BIN)/python benchmarks/load.py --slides 2000
	$(BIN)/python benchmarks/soak.py --minutes 10

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_packaging.py -m "not slow"

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Needs uv. The lock names no host: only names, versions and hashes.
lock:
	uv pip compile pyproject.toml --group dev --generate-hashes --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --only-binary :all: \
	  --no-strip-extras --no-emit-index-url --no-header --no-annotate --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info src/*.egg-info
