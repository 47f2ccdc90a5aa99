#!/usr/bin/env bash
# Makes .venv with torch in it, or keeps the one that is there if it works.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/find-python.sh

if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  python=$(find_python) || { echo "No Python 3.10 or later was found" >&2; exit 1; }
  echo "Making .venv with $("$python" --version)"
  rm -rf .venv build/CMakeCache.txt  # CMake remembers the interpreter that it found
  "$python" -m venv .venv
fi
echo "Installing requirements/runtime.txt"
.venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements/runtime.txt
# The package is imported from where it is edited; the build puts its libraries there.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$PWD/python" >"$site/pytfmbs-in-tree.pth"
touch .venv/.created
