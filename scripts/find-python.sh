# Sourced. find_python prints the interpreter to build .venv from: $PYTHON, or the first of the usual
# names that is 3.10 or later and has venv and the headers.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if "$candidate" - 2>/dev/null <<'PY'
import ensurepip, os, sys, sysconfig, venv
include = sysconfig.get_paths()["include"]
sys.exit(sys.version_info < (3, 10) or not os.path.exists(os.path.join(include, "Python.h")))
PY
    then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}
