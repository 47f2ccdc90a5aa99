# Sourced. find_python prints the interpreter to build .venv from: $PYTHON, or the first of the usual
# names on the path that is 3.10 or later and has venv and the headers; the base of a virtual
# environment, not its link, which may go.
find_python() {
  local name path
  for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
    for path in $(type -ap "$name"); do
      "$path" - 2>/dev/null <<'PY' && return 0
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
if sys.version_info < (3, 10) or not os.path.exists(header):
    sys.exit(1)
print(getattr(sys, "_base_executable", None) or sys.executable)
PY
    done
  done
  return 1
}
