# Everything runs in a virtual environment in .venv; a target installs what it needs, once.
#
#   make demo    plan an example job of about 2,000 requests and show what the plan gains
#   make test    linters, types and all tests
#   make coverage  all tests, and what they leave out; it takes longer
#   make lint    linters and types only
#   make test-engines  the tests on the real vLLM and SGLang, on a CPU (environments of 5 GB)
#   make proof   what plans gain on a real engine; on a GPU: make proof GPU=h100-80g MODEL=NAME
#   make docs    the documentation as a site, in build/docs
#   make bench   speed and memory, as JSON
#   make clean   remove all that the other targets created, but for a proof
#
# PYTHON=python3.12 chooses the interpreter; 3.11 is the oldest that works.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := $(wildcard src tests benchmarks examples)
ENGINES := vllm sglang
# Those on SGLang take less time, so one process is enough.
IN_PARALLEL_vllm := --numprocesses=2 --dist=loadfile
# SGLang's environment has torch and Triton, whose interpreter runs GPU kernels on a CPU.
ALSO_TEST_sglang := tests/proving/test_gpu_kernels.py
BENCH := read_requests tree_build plan_stages
PIP := python -m pip --quiet --quiet --disable-pip-version-check --no-input install
TORCH_INDEX := https://download.pytorch.org/whl/cpu
PYTEST := $(BIN)/python -m pytest --quiet --numprocesses=2 --dist=loadfile
TWO_AT_ONCE := $(MAKE) --no-print-directory --jobs=2 --output-sync=target

.SILENT:
.PHONY: proof demo test coverage lint docs bench engines test-engines $(ENGINES:%=test-%) clean

demo: $(VENV)/run.stamp
	examples/demo.sh $(BIN)

test: lint
	$(PYTEST)

coverage: $(VENV)/dev.stamp
	$(PYTEST) --cov=blendplan --cov-report=term:skip-covered

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check --quiet $(CODE)
	$(BIN)/ruff format --quiet --check $(CODE)
	$(BIN)/mypy --no-error-summary

# Without GPU=NAME: on this machine's CPU, with a tiny model. MINUTES, PROOF (the folder) and
# OPTIONS (of blendplan prove) may be given too.
MINUTES := 30
PROOF := proof
ifdef GPU
proof: .venv-gpu/stamp
	.venv-gpu/bin/blendplan prove --engine vllm --model $(MODEL) --gpu $(GPU) --minutes $(MINUTES) -o $(PROOF) $(OPTIONS)
else
proof: .venv-vllm/stamp $(VENV)/dev.stamp
	$(BIN)/python examples/tiny_model.py README.md -o build/tiny
	.venv-vllm/bin/blendplan prove --engine vllm --model build/tiny --minutes $(MINUTES) -o $(PROOF) $(OPTIONS)
endif

.venv-gpu/stamp: pyproject.toml
	echo "installing vLLM into .venv-gpu, once" >&2
	$(PYTHON) -m venv --clear .venv-gpu
	.venv-gpu/bin/$(PIP) --editable '.[vllm,plots]'
	touch $@

docs: $(VENV)/dev.stamp
	$(BIN)/python -m sphinx --quiet --fail-on-warning docs build/docs
	echo "the site begins at build/docs/index.html"

engines:
	$(TWO_AT_ONCE) $(ENGINES:%=.venv-%/stamp)

test-engines:
	$(TWO_AT_ONCE) $(ENGINES:%=test-%)

# Modules are compiled as they are imported, once: most of an engine's are never used.
$(ENGINES:%=test-%): test-%: .venv-%/stamp
	echo "tests on $*"
	PYTHONDONTWRITEBYTECODE= BLENDPLAN_REQUIRE_ENGINE=$* .venv-$*/bin/python -m pytest --quiet $(IN_PARALLEL_$*) tests/engines/test_$*_*.py $(ALSO_TEST_$*)

bench: $(VENV)/dev.stamp
	for name in $(BENCH); do $(BIN)/python "benchmarks/$$name.py" || exit 1; done

clean:
	rm -rf $(VENV) $(ENGINES:%=.venv-%) .venv-gpu demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/run.stamp: pyproject.toml
	$(call install,.,blendplan)
	touch $@

$(VENV)/dev.stamp: pyproject.toml
	$(call install,.[dev],blendplan and the development tools)
	touch $@ $(VENV)/run.stamp

# Every version is in the file, so nothing is resolved. torch's CPU build is looked for like the
# rest, then in PyTorch's own index. SGLang imports two packages that have no CPU build; stand-ins
# go on its path.
.venv-%/stamp: requirements/%-cpu.txt
	echo "installing $* for a CPU into .venv-$*, once; this takes a few minutes" >&2
	$(PYTHON) -m venv --clear .venv-$*
	torch=$$(grep '^torch==' $<); \
	  .venv-$*/bin/$(PIP) --no-deps --no-compile "$$torch" 2>/dev/null || \
	  .venv-$*/bin/$(PIP) --no-deps --no-compile --index-url $(TORCH_INDEX) "$$torch"
	.venv-$*/bin/$(PIP) --no-deps --no-compile --requirement $<
	.venv-$*/bin/$(PIP) --no-deps --editable .
	test $* != sglang || echo "$(CURDIR)/requirements/stand_ins" > "$$(.venv-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/stand_ins.pth"
	touch $@

define install
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "error: $(PYTHON) is not Python 3.11 or later; try: make PYTHON=python3.12" >&2; exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }; \
	fi
	echo "installing $(2) into $(VENV), once" >&2
	$(BIN)/$(PIP) --editable '$(1)'
endef
