#!/usr/bin/env bash
# make-wheels.sh FOLDER [PYTHON...]: wheels into FOLDER, tagged for the oldest glibc that their symbols
# need. Without PYTHON: for .venv's, and every other that pytfmbs supports and that is found on PATH or
# among pyenv's; 3.12 and later share one. The plugin's too, where `make build-mlir` has built it.
set -euo pipefail
out=$(realpath -m "$1")
shift
cd "$(dirname "$0")/.."
venv=$PWD/.venv
export PATH=$venv/bin:$PATH
work=$PWD/build/wheels
mkdir -p "$work"
torch=$("$venv/bin/python" -c \
  'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')

# name() of an interpreter: cp310, cp311, or cp312 for all later ones; nothing where it cannot be used.
name() {
  "$1" - 2>/dev/null <<'PY'
import os, sys, sysconfig, venv
if sys.version_info >= (3, 10) and os.path.exists(
    os.path.join(sysconfig.get_paths()["include"], "Python.h")
):
    print(f"cp3{min(sys.version_info[1], 12)}")
PY
}

candidates=("$@")
if [ ${#candidates[@]} -eq 0 ]; then
  candidates=("$venv/bin/python")
  # The oldest of those that share a wheel comes first.
  for minor in 10 11 12 13 14; do
    while IFS= read -r found; do candidates+=("$found"); done < <(type -ap "python3.$minor" || true)
    for found in "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor."*/bin/python; do
      [ -x "$found" ] && candidates+=("$found")
    done
  done
fi

repair() {  # of one wheel; torch stays outside, and libtfmbs is in the wheel
  auditwheel repair --plat auto --only-plat -w "$out" --exclude 'libtorch*' --exclude 'libc10*' \
    --exclude 'libtfmbs*' "$1" >"$work/repair.log" 2>&1 || { cat "$work/repair.log" >&2; return 1; }
}

mkdir -p "$out"
declare -A done_names
for python in "${candidates[@]}"; do
  tag=$(name "$python") || continue
  [ -n "$tag" ] && [ -z "${done_names[$tag]:-}" ] || continue
  done_names[$tag]=1
  echo "Building the wheel $tag with $("$python" --version)"
  build=$work/$tag
  rm -f "$build"/*.whl
  "$python" -m venv "$build/venv"
  "$build/venv/bin/python" -m pip install -qq --disable-pip-version-check -r requirements/build.txt
  "$build/venv/bin/python" -m pip wheel -qq --disable-pip-version-check --no-build-isolation --no-deps \
    -w "$build" --config-settings "cmake.define.TFMBS_TORCH_DIR=$torch" \
    --config-settings build-dir="$build/build" .
  repair "$build"/pytfmbs-*.whl
done

plugin=build/libtfmbs_plugin.so
if [ -f "$plugin" ]; then
  echo "Packing the wheel of the plugin"
  rm -rf "$work/plugin"
  cp -r mlir/wheel "$work/plugin"
  cp CMakeLists.txt "$work/plugin"  # the home of the version
  cp "$plugin" "$work/plugin/pytfmbs_mlir_plugin/"
  "$venv/bin/python" -m pip wheel -qq --disable-pip-version-check --no-build-isolation --no-deps \
    -w "$work/plugin" "$work/plugin"
  repair "$work"/plugin/pytfmbs_mlir_plugin-*.whl
else
  echo "SKIPPED the plugin's wheel: make build-mlir has not built $plugin"
fi
ls -l "$out"
