"""transformers: load, quantize and save ternary models with from_pretrained and save_pretrained.

Importing this registers the quantization method "tfmbs" (docs/transformers.md).
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

try:
    _found = find_spec("transformers.core_model_loading")
except ImportError:
    _found = None
if _found is None:
    raise ImportError(
        "pytfmbs.integrations.transformers needs transformers 5 or later: "
        "pip install pytfmbs[transformers]"
    )

from .config import TFMBSConfig
from .quantizer import TFMBSHfQuantizer

if TYPE_CHECKING:
    from .adapters import PackedLora, enable_lora
    from .attaching import attach
    from .loading import from_pretrained

__all__ = [
    "PackedLora",
    "TFMBSConfig",
    "TFMBSHfQuantizer",
    "attach",
    "enable_lora",
    "from_pretrained",
]


def __getattr__(name: str) -> Any:
    # Not before they are asked for: this is imported in the middle of transformers' own import.
    if name in ("PackedLora", "enable_lora"):
        from . import adapters as module
    elif name == "from_pretrained":
        from . import loading as module  # type: ignore[no-redef]
    elif name == "attach":
        from . import attaching as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
