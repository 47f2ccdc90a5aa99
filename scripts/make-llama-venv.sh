#!/usr/bin/env bash
# Makes .venv-llama for `make test-llama`: llama-cpp-python, its llama.cpp compiled for this CPU.
# Takes 12 minutes of CPU time: 6 on two cores. $JOBS compiles at once.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/find-python.sh

venv=$PWD/.venv-llama
python=$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1
export CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc 2>/dev/null || sysctl -n hw.ncpu)}
export PATH=$venv/bin:$PATH

base=$(find_python) || { echo "No Python 3.10 or later was found" >&2; exit 1; }
echo "Making .venv-llama with $("$base" --version)"
rm -rf "$venv"
"$base" -m venv "$venv"
"$python" -m pip install -qq scikit-build-core==1.1.2 cmake==4.4.4 ninja==1.13.2
# The libraries only: no programs, tests, or readers of pictures.
options=(-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF)
CMAKE_ARGS="${options[*]}" "$python" -m pip install -qq --no-build-isolation -r requirements/llama.txt
touch "$venv/.created"
