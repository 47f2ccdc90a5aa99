"""The networks of the execution check: a model in some file format, and the same in PyTorch.

The references are put together by hand from TFMBSLinear and know nothing of the importer.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytfmbs
import pytfmbs.onnx
import torch
from pytfmbs import FabricConfig, TFMBSLinear
from torch import Tensor, nn


@dataclass
class Built:
    """One network twice, and what goes in."""

    source: onnx.ModelProto
    reference: nn.Module
    inputs: Tensor
    options: dict[str, Any] = field(default_factory=dict)  # of the importer
    exact: bool = True  # bit for bit, else to the rounding of libm's functions (run_execution.py)


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[pytfmbs.Fabric], Built]
    config: FabricConfig = field(default_factory=FabricConfig)
    place: bool = False
    quick: bool = True


def tfmbs_layers(model: nn.Module) -> list[TFMBSLinear]:
    return [module for module in model.modules() if isinstance(module, TFMBSLinear)]


def mlp(
    sizes: list[int],
    fabric: pytfmbs.Fabric,
    *,
    mixed: bool = False,
    dtype: Any = None,
    **options: Any,
) -> nn.Sequential:
    """Layers with ReLU between them; mixed alternates quantizers and activations."""
    modules: list[nn.Module] = []
    for index, (depth, outputs) in enumerate(pairwise(sizes)):
        if mixed:
            options["weight_quantizer"] = ("sign", "absmean", "twn")[index % 3]
            options["activation"] = ("ternary", "int8")[index % 2]
        modules += [
            TFMBSLinear(
                depth, outputs, fabric=fabric, name=f"fc{index + 1}", dtype=dtype, **options
            ),
            nn.ReLU(),
        ]
    return nn.Sequential(*modules[:-1]).eval()


def exported(model: nn.Module, inputs: Tensor, mode: str) -> onnx.ModelProto:
    program = pytfmbs.onnx.export(model, (inputs,), mode=mode, dynamic_shapes=({0: "batch"},))
    return program.model_proto


def of_layers(
    mode: str, sizes: list[int], samples: int = 6, **options: Any
) -> Callable[..., Built]:
    def build(fabric: pytfmbs.Fabric) -> Built:
        model = mlp(sizes, fabric, **options)
        inputs = torch.randn(samples, sizes[0], dtype=options.get("dtype"))
        return Built(exported(model, inputs, mode), model, inputs)

    return build


def tokens(fabric: pytfmbs.Fabric) -> Built:
    """Leading dimensions, of which one is dynamic."""
    model = mlp([40, 30, 12], fabric, weight_quantizer="absmean", activation="int8")
    inputs = torch.randn(3, 5, 40)
    return Built(exported(model, inputs, "custom"), model, inputs)


def plain_linear(quantizer: str, activation: str) -> Callable[..., Built]:
    """nn.Linear as torch exports it; it becomes ternary in the importer."""

    def build(fabric: pytfmbs.Fabric) -> Built:
        plain = nn.Sequential(nn.Linear(784, 60), nn.ReLU(), nn.Linear(60, 10)).eval()
        inputs = torch.randn(6, 784)
        file = io.BytesIO()
        program = torch.onnx.export(plain, (inputs,), dynamic_shapes=({0: "batch"},), verbose=False)
        program.save(file)
        reference = nn.Sequential(
            *(of_linear(module, fabric, quantizer, activation) for module in plain)
        )
        options = {"weight_quantizer": quantizer, "activation": activation}
        return Built(onnx.load_from_string(file.getvalue()), reference.eval(), inputs, options)

    return build


def of_linear(
    module: nn.Module, fabric: pytfmbs.Fabric, quantizer: str, activation: str
) -> nn.Module:
    if not isinstance(module, nn.Linear):
        return module
    return of_arrays(
        module.weight.detach().numpy(), module.bias.detach().numpy(), fabric, quantizer, activation
    )


def of_arrays(
    weight: np.ndarray, bias: np.ndarray, fabric: pytfmbs.Fabric, quantizer: str, activation: str
) -> TFMBSLinear:
    outputs, depth = weight.shape
    layer = TFMBSLinear(
        depth, outputs, fabric=fabric, weight_quantizer=quantizer, activation=activation
    )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.astype(np.float32)))
        layer.bias.copy_(torch.from_numpy(bias.astype(np.float32)))
    return layer


# --- scikit-learn through skl2onnx ----------------------------------------------------------------


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    return (data / 16 - 0.3).astype(np.float32), target


def to_onnx(model: Any, features: int, **options: Any) -> onnx.ModelProto:
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import FloatTensorType

    kinds = [("input", FloatTensorType([None, features]))]
    return convert(model, initial_types=kinds, target_opset=18, **options)


def of_mlp(
    model: Any, fabric: pytfmbs.Fabric, quantizer: str, activation: str, between: nn.Module
) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for weight, bias in zip(model.coefs_, model.intercepts_, strict=True):
        modules += [of_arrays(weight.T, bias, fabric, quantizer, activation), between]
    return modules[:-1]


def mlp_regressor(fabric: pytfmbs.Fabric) -> Built:
    from sklearn.neural_network import MLPRegressor

    data, target = digits()
    model = MLPRegressor(hidden_layer_sizes=(37, 23), max_iter=3, random_state=0).fit(
        data, target / 10.0
    )
    reference = nn.Sequential(*of_mlp(model, fabric, "absmean", "int8", nn.ReLU()))
    options = {"weight_quantizer": "absmean", "activation": "int8"}
    inputs = torch.from_numpy(data[:40])
    return Built(to_onnx(model, 64), reference.eval(), inputs, options)


def mlp_classifier(fabric: pytfmbs.Fabric) -> Built:
    from sklearn.neural_network import MLPClassifier

    data, target = digits()
    model = MLPClassifier((50,), activation="tanh", max_iter=3, random_state=0).fit(data, target)
    modules = of_mlp(model, fabric, "twn", "ternary", nn.Tanh())
    options = {"weight_quantizer": "twn", "activation": "ternary", "outputs": ["probabilities"]}
    source = to_onnx(model, 64, options={"zipmap": False})
    reference = nn.Sequential(*modules, nn.Softmax(-1))
    return Built(source, reference.eval(), torch.from_numpy(data[:40]), options, exact=False)


def logistic_regression(fabric: pytfmbs.Fabric) -> Built:
    from sklearn.linear_model import LogisticRegression

    data, target = digits()
    model = LogisticRegression(max_iter=20).fit(data, target)
    layer = of_arrays(model.coef_, model.intercept_, fabric, "absmean", "int8")
    options = {"weight_quantizer": "absmean", "activation": "int8", "outputs": ["probabilities"]}
    source = to_onnx(model, 64, options={"zipmap": False})
    reference = nn.Sequential(layer, nn.Softmax(-1))
    return Built(source, reference.eval(), torch.from_numpy(data[:40]), options, exact=False)


SEED = [784, 60, 10]
DEEP = [33, 1100, 2000, 61, 7, 129, 45, 10]  # odd sizes, over 60 wide, over 1,024 deep, 2,000 wide
SMALL = FabricConfig(tiles=3, lanes=10, bank_depth=64)

CASES = [
    Case("784-60-10, custom", of_layers("custom", SEED)),
    Case("784-60-10, portable", of_layers("portable", SEED)),
    Case("784-60-10, placed", of_layers("custom", SEED), place=True),
    Case("784-60-10, nn.Linear", plain_linear("sign", "ternary")),
    Case("784-60-10, nn.Linear, int8", plain_linear("absmean", "int8"), quick=False),
    Case("deep, custom", of_layers("custom", DEEP, samples=4, mixed=True)),
    Case("deep, portable", of_layers("portable", DEEP, samples=4, mixed=True), quick=False),
    Case("absmean, int8", of_layers("portable", [90, 70, 5], weight_quantizer="absmean",
                                    activation="int8")),
    Case("twn, small fabric", of_layers("custom", [130, 75, 41, 9], weight_quantizer="twn"),
         config=SMALL),
    Case("fp64, int8", of_layers("custom", [50, 21, 4], dtype=torch.float64, activation="int8")),
    Case("bf16", of_layers("custom", [50, 21, 4], dtype=torch.bfloat16, mixed=True), quick=False),
    Case("tokens", tokens),
    Case("sklearn MLPRegressor", mlp_regressor),
    Case("sklearn MLPClassifier", mlp_classifier),
    Case("sklearn LogisticRegression", logistic_regression),
]  # fmt: skip
