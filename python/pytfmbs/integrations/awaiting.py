"""What ``import pytfmbs`` does for packages that may be imported before it, after it, or never."""

from __future__ import annotations

import logging
import sys

from torch import nn

from ..nn.imports import after_import

_log = logging.getLogger("pytfmbs")
#: transformers' module of quantization methods. It is imported with the first model class.
_METHODS = "transformers.quantizers.auto"


def register_with_transformers() -> None:
    """Makes transformers know the quantization method "tfmbs": now, where its methods are imported
    already, or as soon as they are. transformers loads a checkpoint of a method that it does not know
    as a float model with random weights."""
    after_import(_METHODS, _register)


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
