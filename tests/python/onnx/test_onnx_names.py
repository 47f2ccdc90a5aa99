"""Names of the user's that equal those of generated values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import pytfmbs.onnx
import torch
from pytfmbs import TFMBSLinear
from torch import Tensor, nn


class Scaled(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.layer = TFMBSLinear(8, 8, name=name, weight_quantizer="twn", activation="int8")
        self.gain = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.gain


@pytest.mark.parametrize("mode", ["portable", "custom"])
@pytest.mark.parametrize("which", ["input", "output"])
@pytest.mark.parametrize("suffix", ["", ".scale", ".trits", ".weights", ".bias", ".product"])
def test_an_input_or_output_named_like_a_generated_value(
    suffix: str, which: str, mode: str, tmp_path: Path
) -> None:
    name = f"names-{mode}-{which}{suffix}"  # a layer of its own, which gets no suffix
    model, x, file = Scaled(name).eval(), torch.randn(3, 8), tmp_path / "model.onnx"
    assert model.layer.name == name
    taken = name + suffix
    inputs, outputs = ([taken], ["y"]) if which == "input" else (["x"], [taken])
    pytfmbs.onnx.export(model, (x,), str(file), mode=mode, input_names=inputs, output_names=outputs)
    graph = onnx.load(file).graph
    assert [value.name for value in graph.input] == inputs
    assert [value.name for value in graph.output] == outputs
    names = Counter(tensor.name for tensor in graph.initializer)
    names.update(value.name for value in graph.input)
    names.update(result for node in graph.node for result in node.output if result)
    assert set(names.values()) == {1}, names
    if mode == "portable":
        (found,) = onnxruntime.InferenceSession(file).run(None, {inputs[0]: x.numpy()})
        assert np.array_equal(found, model(x).detach().numpy())
