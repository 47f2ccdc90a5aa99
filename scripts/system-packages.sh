#!/usr/bin/env bash
# system-packages.sh NEED...: makes sure that the machine has what pip cannot give.
#   python    Python 3.10 or later with venv and headers
#   compiler  a C++20 compiler
#   gtest     GoogleTest
#   benchmark Google Benchmark
#   arm64     a compiler for 64-bit ARM Linux, qemu-user, and GoogleTest's sources
#   mlir      MLIR 22: its C++ library, mlir-opt and its kin, LLVM's llc, opt and FileCheck
# What is missing is installed by apt where apt and the right to use it are there. Otherwise the
# message says which package to install, and the exit status is 1.
set -euo pipefail
. "$(dirname "$0")/find-python.sh"

has_compiler() {
  printf '#include <concepts>\n#include <span>\nint main() { return std::integral<int> ? 0 : 1; }\n' |
    "${CXX:-c++}" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null
}
has_header() {
  printf '#include <%s>\n' "$1" | "${CXX:-c++}" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null
}
has_gtest() { has_header gtest/gtest.h; }
has_benchmark() { has_header benchmark/benchmark.h; }
has_mlir() {
  local prefix
  for prefix in "$(llvm-config-22 --prefix 2>/dev/null || true)" /usr/lib/llvm-22 \
                /opt/homebrew/opt/llvm@22 /usr/local/opt/llvm@22; do
    if [ -f "$prefix/lib/cmake/mlir/MLIRConfig.cmake" ] && [ -x "$prefix/bin/mlir-opt" ] &&
       [ -x "$prefix/bin/llc" ] && [ -x "$prefix/bin/FileCheck" ]; then
      return 0
    fi
  done
  return 1
}
has_arm64() {
  command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null &&
    [ -f /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1 ] &&
    [ -f /usr/src/googletest/CMakeLists.txt ]
}
has_python() { find_python >/dev/null; }

packages_of() {
  case $1 in
    compiler) echo g++ ;;
    gtest) echo libgtest-dev ;;
    benchmark) echo libbenchmark-dev ;;
    arm64) echo g++-aarch64-linux-gnu qemu-user googletest ;;
    mlir) echo libmlir-22-dev mlir-22-tools llvm-22-dev ;;
    python) echo python3 python3-venv python3-dev ;;
  esac
}

missing=()
for need in "$@"; do
  declare -F "has_$need" >/dev/null || { echo "$0: unknown need: $need" >&2; exit 2; }
  # shellcheck disable=SC2207
  "has_$need" || missing+=($(packages_of "$need"))
done
[ ${#missing[@]} -eq 0 ] && exit 0

root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    root=(sudo)
  else
    root=(false)
  fi
fi
if command -v apt-get >/dev/null && [ "${root[*]-}" != false ]; then
  echo "Installing system packages: ${missing[*]}"
  log=$(mktemp)
  if ! { "${root[@]}" apt-get update -qq &&
         DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -qq -y \
           --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
  fi
  rm -f "$log"
fi

status=0
for need in "$@"; do
  if ! "has_$need"; then
    echo "Missing: $(packages_of "$need") (names of Debian's packages). It could not be installed" \
         "from here; install it, then run make again." >&2
    status=1
  fi
done
exit $status
