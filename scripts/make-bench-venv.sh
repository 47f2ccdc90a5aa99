#!/usr/bin/env bash
# Makes .venv-bench for `make bench`: torch, the suite's needs, and the peers. A peer that cannot be
# installed is named and left out. $JOBS compiles at once.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/find-python.sh

venv=$PWD/.venv-bench
python=$venv/bin/python
jobs=${JOBS:-$(nproc 2>/dev/null || sysctl -n hw.ncpu)}
export PIP_DISABLE_PIP_VERSION_CHECK=1 CMAKE_BUILD_PARALLEL_LEVEL=$jobs
export PATH=$venv/bin:$PATH

pip_install() { "$python" -m pip install -qq -c requirements/runtime.txt "$@"; }

if ! "$python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  base=$(find_python) || { echo "No Python 3.10 or later was found" >&2; exit 1; }
  echo "Making .venv-bench with $("$base" --version)"
  rm -rf "$venv"
  "$base" -m venv "$venv"
fi
echo "Installing requirements/runtime.txt, build.txt, bench.txt"
pip_install -r requirements/runtime.txt
pip_install -r requirements/build.txt -r requirements/bench.txt
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$PWD/python" >"$site/pytfmbs-in-tree.pth"

# ggml, once for this CPU and once held to AVX2, of the sources that llama-cpp-python ships.
build_ggml() {
  local sources=$venv/src/ggml archive root
  rm -rf "$sources" && mkdir -p "$sources"
  "$python" -m pip download -qq --no-deps --no-binary :all: --no-build-isolation -d "$sources" "$1"
  archive=$(echo "$sources"/*.tar.gz)
  tar -xzf "$archive" -C "$sources" --wildcards '*/vendor/llama.cpp/ggml/*'
  root=$(echo "$sources"/*/vendor/llama.cpp/ggml)
  rm "$archive"
  local avx2=(-DGGML_NATIVE=OFF)
  if [ "$(uname -m)" = x86_64 ]; then
    avx2+=(-DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON)
  fi
  for variant in native avx2; do
    local options=(-DGGML_NATIVE=ON)
    [ $variant = avx2 ] && options=("${avx2[@]}")
    cmake -S benchmarks/ggml -B "$venv/ggml/$variant" -G Ninja -DCMAKE_BUILD_TYPE=Release \
      -DGGML_SOURCE="$root" "${options[@]}" >/dev/null
    cmake --build "$venv/ggml/$variant" >/dev/null
  done
}

# litespark-inference compiles for the CPU that it is installed on; its AVX2 tier at first use.
build_litespark() {
  pip_install --no-build-isolation "$1"
  LITESPARK_KERNEL_TIER=avx2 CXX=${CXX:-g++} "$python" -c \
    'from litespark_inference.torchless import kernel; kernel.ensure_built()' 2>/dev/null
}

while IFS= read -r peer; do
  [[ -z $peer || $peer == \#* ]] && continue
  echo "Installing $peer"
  case $peer in
    llama-cpp-python*) install=build_ggml ;;
    litespark-inference*) install=build_litespark ;;
    *) install=pip_install ;;
  esac
  # A subshell of its own: -e holds inside, and a failure ends there.
  set +e
  (set -e; "$install" "$peer")
  status=$?
  set -e
  [ $status -eq 0 ] || echo "Absent from the benchmarks: $peer could not be installed" >&2
done <requirements/bench-peers.txt
