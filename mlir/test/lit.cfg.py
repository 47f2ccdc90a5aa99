"""What `lit mlir/test` runs: the commands that a user types, with the plugin that was built.

    lit -v mlir/test
    lit -v mlir/test --param tfmbs_plugin=build/libtfmbs_plugin.so --param mlir_opt=mlir-opt-22

Tools are found as the compiler finds them (python/pytfmbs/compiler/toolchain/programs.py: arguments, the
environment, PATH, the systems' usual folders); FileCheck, not, and the rest lie beside mlir-opt.
"""
# ruff: noqa: F821 (config and lit_config are lit's)

import importlib.util
import os
import sys
from pathlib import Path

import lit.formats

_root = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location(
    "toolchain", _root / "python/pytfmbs/compiler/toolchain/programs.py"
)
_module = importlib.util.module_from_spec(_spec)
sys.modules["toolchain"] = _module  # dataclasses look their module up
_spec.loader.exec_module(_module)

_tools = _module.Toolchain(
    mlir_opt=lit_config.params.get("mlir_opt"), plugin=lit_config.params.get("tfmbs_plugin")
)
try:
    _mlir_opt = Path(_tools.path("mlir-opt")).resolve()
    _plugin = Path(_tools.path("plugin")).resolve()
except _module.ToolNotFoundError as error:
    lit_config.fatal(str(error))
for _name in ("FileCheck", "not"):
    if not (_mlir_opt.parent / _name).exists():
        lit_config.fatal(f"{_mlir_opt.parent} has no {_name}: on Debian, llvm-22-tools brings it")

config.name = "tfmbs"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.test_source_root = str(Path(__file__).resolve().parent)
config.test_exec_root = str(_plugin.parent / "mlir-test")
config.environment["PATH"] = os.pathsep.join([str(_mlir_opt.parent), os.environ["PATH"]])
config.environment["FILECHECK_OPTS"] = "--dump-input=fail --enable-var-scope"
config.substitutions.append(("%tfmbs_plugin", str(_plugin)))
config.substitutions.append(("%mlir_tblgen", str(_mlir_opt.parent / "mlir-tblgen")))
config.substitutions.append(("%mlir_include", str(_mlir_opt.parents[1] / "include")))
config.substitutions.append(("%python", sys.executable))
config.substitutions.append(("%root", str(_root)))
