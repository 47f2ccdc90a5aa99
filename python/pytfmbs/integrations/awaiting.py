"""What ``import pytfmbs`` does for packages that may be imported before it, after it, or never."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from torch import nn

_log = logging.getLogger("pytfmbs")
#: transformers' module of quantization methods. It is imported with the first model class.
_METHODS = "transformers.quantizers.auto"


def register_with_transformers() -> None:
    """Makes transformers know the quantization method "tfmbs": now, where its methods are imported
    already, or as soon as they are. transformers loads a checkpoint of a method that it does not know
    as a float model with random weights."""
    if _METHODS in sys.modules:
        _register()
    elif not any(isinstance(finder, _After) for finder in sys.meta_path):
        sys.meta_path.insert(0, _After(_METHODS, _register))


def tell_transformers(model: nn.Module) -> None:
    """Makes save_pretrained of transformers' models write the ternary layers that a model got."""
    modeling = sys.modules.get("transformers.modeling_utils")
    kind = getattr(modeling, "PreTrainedModel", None)
    if kind is None or not any(isinstance(module, kind) for module in model.modules()):
        return
    try:
        from .transformers.attaching import attach
    except ImportError as error:
        _log.warning("save_pretrained does not write ternary layers: %s", error)
        return
    attach(model)


def _register() -> None:
    try:
        from .transformers import quantizer  # noqa: F401
    except ImportError as error:
        _log.warning("transformers does not know the method 'tfmbs': %s", error)


class _After(importlib.abc.MetaPathFinder):
    """Calls a function once a module has been imported. Another finder finds the module."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name, self.action = name, action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.action)
        return spec


class _Loader(importlib.abc.Loader):
    """Another loader, and an action after it."""

    def __init__(self, loader: Any, action: Callable[[], None]) -> None:
        self._loader, self._action = loader, action

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._action()
