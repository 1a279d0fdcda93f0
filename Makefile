# make demo    train and evaluate on the embedded digits, and say where the report lies
# make test    check, then the tests: once those that need no Keras, the others on every backend
# make check   ruff, mypy, import-linter
# make bench   speed and memory beside hand-written loops
# make clean   remove what the others made
#
# make test MARKS="slow or not slow"     the slow tests too
# make test BACKENDS=jax PYTEST_ARGS=-x  one backend in one process, stopping at the first failure

PYTHON ?= python3
BACKENDS ?= torch jax tensorflow
MARKS ?= not slow
PYTEST_ARGS ?= -n 2 --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DELETE_ON_ERROR:
.PHONY: demo test check bench clean

# Small networks and two workers: more threads would wait for one another.
demo test: export OMP_NUM_THREADS ?= 1

# tensorflow-cpu stands beside the extras, not among them: it gives the same module as the package `tensorflow`,
# which the extra asks for, and both in one environment overwrite each other.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,torch,jax]' tensorflow-cpu
	touch $@

demo: $(STAMP)
	$(BIN)/kbl run recipes/digits.toml --out runs/demo --force
	@echo "The report is runs/demo/report.html"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A test that needs no Keras bears the mark `once`. Nothing stops at the first failure; any makes the exit code 1.
test: $(STAMP)
	@failed=""; \
	$(MAKE) --no-print-directory check || failed="$$failed check"; \
	echo "== tests that need no Keras"; \
	KERAS_BACKEND=$(firstword $(BACKENDS)) $(BIN)/python -m pytest -m "once and ($(MARKS))" $(PYTEST_ARGS) \
	  || failed="$$failed once"; \
	for backend in $(BACKENDS); do \
	  echo "== tests on $$backend"; \
	  KERAS_BACKEND=$$backend $(BIN)/python -m pytest -m "not once and ($(MARKS))" $(PYTEST_ARGS) \
	    || failed="$$failed $$backend"; \
	done; \
	if [ -n "$$failed" ]; then echo "== failed:$$failed"; exit 1; fi; \
	echo "== passed: check, once, $(BACKENDS)"

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
