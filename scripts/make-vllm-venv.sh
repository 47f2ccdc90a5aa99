#!/usr/bin/env bash
# Makes .venv-vllm for `make test-vllm`: torch, vLLM for the CPU, and pytfmbs from this tree, with the
# entry point that vLLM finds it by. 2.5 GB. Needs .venv, and Python 3.11 or later.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$PWD/.venv-vllm
python=$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

# The libraries in python/pytfmbs are of .venv's interpreter.
base=$(.venv/bin/python -c 'import sys; print(sys._base_executable)')
"$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "vLLM needs Python 3.11 or later; .venv has $("$base" --version)" >&2; exit 1; }
echo "Making .venv-vllm with $("$base" --version)"
rm -rf "$venv"
"$base" -m venv "$venv"
"$python" -m pip install -qq --no-compile "$(grep '^torch==' requirements/runtime.txt)"
"$python" -m pip install -qq --no-compile --no-deps -r requirements/vllm.txt
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$PWD/python" >"$site/pytfmbs-in-tree.pth"
# The package's metadata without a build.
.venv/bin/python - "$site" >/dev/null 2>&1 <<'PY'
import sys
from scikit_build_core.build import prepare_metadata_for_build_wheel
prepare_metadata_for_build_wheel(sys.argv[1])
PY
"$python" -c 'from importlib.metadata import entry_points as e; e(group="vllm.general_plugins")["pytfmbs"]'
touch "$venv/.created"
