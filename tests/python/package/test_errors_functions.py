"""Bad input to the functions of the package: an error that says what is wrong, and the device as
before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytfmbs
import torch
from bad_calls import NAN, ONE, Case, Stage, assert_refused, each
from pytfmbs import ArgumentError, EncodingError, FabricError, convert
from pytfmbs.ops.identity import identity_tensor
from torch import nn


def lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 2), nn.LazyLinear(2))


CASES: list[Case] = [
    # convert
    ("convert: class", lambda s: convert(nn.Linear), TypeError, "model must be an nn.Module"),
    ("convert: None", lambda s: convert(None), TypeError, "not NoneType"),
    (
        "convert: filter",
        lambda s: convert(nn.Linear(2, 2), filter_fn=3),
        TypeError,
        "filter_fn must be",
    ),
    ("convert: option", lambda s: convert(nn.Linear(2, 2), colour="red"), TypeError, "colour"),
    (
        "convert: value",
        lambda s: convert(nn.Linear(2, 2), activation="x"),
        ValueError,
        "activation",
    ),
    (
        "convert: lazy",
        lambda s: convert(lazy(), filter_fn=lambda *_: True),
        TypeError,
        "lazy or parametrized",
    ),
    # ops
    (
        "op: identity",
        lambda s: pytfmbs.ops.linear(
            s.x, s.layer.weight, None, identity_tensor(b"fc1"), "sign", "ternary", None, False
        ),
        RuntimeError,
        "expected 'tfmbs2;'",
    ),
    (
        "op: identity of another dtype",
        lambda s: pytfmbs.ops.linear(
            s.x, s.layer.weight, None, s.x[0], "sign", "ternary", None, False
        ),
        RuntimeError,
        "identity must be a contiguous vector of uint8",
    ),
    (
        "op: quantizer",
        lambda s: pytfmbs.ops.quantize_weight(s.layer.weight, "x"),
        RuntimeError,
        "allowed are 'sign'",
    ),
    (
        "op: custom",
        lambda s: pytfmbs.ops.quantize_weight(s.layer.weight, "custom"),
        RuntimeError,
        "in Python",
    ),
    (
        "op: activation",
        lambda s: pytfmbs.ops.quantize_activation(s.x, "x"),
        RuntimeError,
        "'ternary', 'int8'",
    ),
    (
        "op: integers",
        lambda s: pytfmbs.ops.quantize_activation(s.x.int(), "int8"),
        RuntimeError,
        "must be float32",
    ),
    (
        "op: scalar",
        lambda s: pytfmbs.ops.quantize_activation(ONE[0], "int8"),
        RuntimeError,
        "one dimension",
    ),
    # packing and kernels
    ("pack: list", lambda s: pytfmbs.pack_pt5([0, 1]), TypeError, "not list"),
    ("pack: 2", lambda s: pytfmbs.pack_pt5(torch.tensor([0, 2])), FabricError, ""),
    ("pack: NaN", lambda s: pytfmbs.pack_pt5(np.array([0.0, NAN])), FabricError, ""),
    ("pack: bool", lambda s: pytfmbs.pack_pt5(torch.ones(5, dtype=torch.bool)), TypeError, "dtype"),
    (
        "unpack: 243",
        lambda s: pytfmbs.unpack_pt5(np.array([0, 243], np.uint8)),
        EncodingError,
        "0xf3 at offset 1",
    ),
    ("unpack: dtype", lambda s: pytfmbs.unpack_pt5(torch.zeros(2)), TypeError, "uint8"),
    (
        "unpack: count",
        lambda s: pytfmbs.unpack_pt5(torch.zeros(1, dtype=torch.uint8), 6),
        ValueError,
        "0 to 5",
    ),
    ("kernels: name", lambda s: pytfmbs.select_kernels("fastest"), FabricError, "fastest"),
    ("kernels: type", lambda s: pytfmbs.select_kernels(3), TypeError, "incompatible"),
    (
        "set_weight_storage: name",
        lambda s: pytfmbs.set_weight_storage("memory"),
        ArgumentError,
        "'memory'; allowed are 'auto', 'cached', 'streamed'",
    ),
    (
        "set_weight_storage: type",
        lambda s: pytfmbs.set_weight_storage(None),
        TypeError,
        "incompatible",
    ),
]


@each(CASES)
def test_bad_input_is_refused_and_changes_nothing(
    stage: Stage, call: Callable[[Stage], Any], error: type[BaseException], words: str
) -> None:
    assert_refused(stage, call, error, words)
