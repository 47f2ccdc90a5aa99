"""The quantization method "tfmbs" of transformers' from_pretrained and save_pretrained."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer

from ...checkpoints.own import METHOD
from ...errors import ArgumentError, FabricError
from ...nn.linear import TFMBSLinear
from .config import TFMBSConfig


class TFMBSHfQuantizer(HfQuantizer):
    """Ternary layers, made one by one as their weights arrive.

    Until all have arrived they stand beside the model: transformers fills every buffer that no file
    has, and a packed layer's are such.
    """

    quantization_config: TFMBSConfig

    def __init__(self, quantization_config: TFMBSConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._loading: Any = None
        #: The quantizer that transformers loaded the model with, where it was another.
        self.other: HfQuantizer | None = None
        bitnet = quantization_config.bitnet
        if bitnet is not None and bitnet.get("quantization_mode") == "online":
            self.pre_quantized = False  # float weights: one at a time

    # --- what transformers asks -------------------------------------------------------------------

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Raises ArgumentError for a device map that leads elsewhere than to the CPU."""
        device_map = kwargs.get("device_map")
        if not isinstance(device_map, dict):
            return
        elsewhere = {str(device) for device in device_map.values()} - {"cpu"}
        if elsewhere:
            raise ArgumentError(
                f"device_map names {', '.join(sorted(elsewhere))}; ternary layers run on the CPU. "
                "Pass device_map='cpu'"
            )

    def update_device_map(self, device_map: Any) -> Any:
        return {"": "cpu"} if isinstance(device_map, str) else device_map

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True  # adapters on packed layers, or the layers themselves

    @property
    def is_qat_trainable(self) -> bool:
        return self.quantization_config.trainable

    @property
    def is_compileable(self) -> bool:
        return True

    def get_state_dict_and_metadata(
        self, model: Any
    ) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        from .saving import saved_state

        return saved_state(model), {}

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        raise NotImplementedError(
            "a ternary model is not dequantized: its activations are quantized as well. For training, "
            "pytfmbs.thaw(model) gives it float weights again"
        )

    # --- loading ----------------------------------------------------------------------------------

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        from .arriving import Arrivals

        self._loading = Arrivals(
            model, self.quantization_config, self.pre_quantized, kwargs.get("checkpoint_files")
        )

    def get_weight_conversions(self) -> list[Any]:
        found: list[Any] = [] if self._loading is None else self._loading.conversions(self)
        return found

    def param_needs_quantization(self, model: nn.Module, param_name: str, **kwargs: Any) -> bool:
        return self._loading is not None and self._loading.quantizes(param_name)

    def get_quantize_ops(self) -> Any:
        from .arriving import Quantize

        return Quantize(self._loading)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        from .saving import layer_entries

        loading, self._loading = self._loading, None
        loading.finish(model)
        model._weight_conversions = [
            conversion for conversion in model._weight_conversions if not loading.is_own(conversion)
        ]
        config = self.quantization_config
        layers = [module for module in model.modules() if isinstance(module, TFMBSLinear)]
        config.layers, config.bitnet = layer_entries(model), None
        config.trainable = bool(layers)
        self.pre_quantized = True
        return model


def _register() -> None:
    """Raises FabricError where another package has taken the name."""
    for table, kind, register in (
        (auto.AUTO_QUANTIZATION_CONFIG_MAPPING, TFMBSConfig, auto.register_quantization_config),
        (auto.AUTO_QUANTIZER_MAPPING, TFMBSHfQuantizer, auto.register_quantizer),
    ):
        if METHOD not in table:
            register(METHOD)(kind)
        elif table[METHOD] is not kind:
            raise FabricError(
                f"transformers has another quantization method {METHOD!r}: {table[METHOD]}"
            )


_register()
