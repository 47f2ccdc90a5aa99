"""Bad input to a layer and to what calls its quantizer: an error that says what is wrong, and the
device as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytfmbs
import torch
from bad_calls import (
    BANK_A,
    BANK_B,
    NAN,
    ONE,
    TRITS,
    Broken,
    Case,
    Stage,
    assert_refused,
    each,
    setter,
)
from pytfmbs import ArgumentError, PlacementError, TFMBSLinear, TFMBSLinearFunction


def broken_layer(stage: Stage, trits: Any, scale: Any) -> Any:
    layer = TFMBSLinear(20, 7, False, fabric=stage.other, weight_quantizer=Broken((trits, scale)))
    return layer(stage.x)


def layer(stage: Stage) -> TFMBSLinear:
    return stage.layer


CASES: list[Case] = [
    # TFMBSLinear
    ("layer: dtype", lambda s: TFMBSLinear(4, 2, dtype=torch.int8), TypeError, "float32, float64"),
    ("layer: complex", lambda s: TFMBSLinear(4, 2, dtype=torch.complex64), TypeError, "float32"),
    (
        "layer: fabric",
        lambda s: TFMBSLinear(4, 2, fabric="default"),
        TypeError,
        "must be a pytfmbs.Fabric",
    ),
    ("layer: name", lambda s: TFMBSLinear(4, 2, name=3), TypeError, "name must be a string"),
    ("layer: surrogate", lambda s: TFMBSLinear(4, 2, name="\ud800"), (TypeError, UnicodeError), ""),
    (
        "layer: activation",
        lambda s: TFMBSLinear(4, 2, activation="int4"),
        ValueError,
        "'ternary', 'int8'",
    ),
    (
        "layer: quantizer",
        lambda s: TFMBSLinear(4, 2, weight_quantizer="best"),
        ValueError,
        "'sign', 'absmean', 'twn'",
    ),
    (
        "layer: quantizer type",
        lambda s: TFMBSLinear(4, 2, weight_quantizer=3),
        TypeError,
        "object with `name`",
    ),
    (
        "layer: quantizer class",
        lambda s: TFMBSLinear(4, 2, weight_quantizer=pytfmbs.TwnQuantizer),
        TypeError,
        "object with `name`",
    ),
    ("layer: clip 0", lambda s: TFMBSLinear(4, 2, ste_clip=0), ValueError, "above 0"),
    ("layer: clip NaN", lambda s: TFMBSLinear(4, 2, ste_clip=NAN), ValueError, "ste_clip is nan"),
    ("layer: clip text", lambda s: TFMBSLinear(4, 2, ste_clip="1"), TypeError, ""),
    (
        "layer: address type",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, weight_addr="x"),
        TypeError,
        "weight_addr must be",
    ),
    (
        "layer: address < 0",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, weight_addr=-4),
        PlacementError,
        "weight_addr is -4",
    ),
    (
        "layer: address in B",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, weight_addr=BANK_B),
        PlacementError,
        "not in tile 0's Bank A",
    ),
    (
        "layer: unaligned",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, weight_addr=BANK_A + 1),
        PlacementError,
        "multiples of 4",
    ),
    (
        "layer: no room",
        lambda s: TFMBSLinear(20, 2, fabric=s.fabric, weight_addr=BANK_A + 4 * 60),
        PlacementError,
        "needs 20",
    ),
    (
        "layer: overlap",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, name="late", weight_addr=BANK_A + 4 * 52),
        PlacementError,
        "'late'.*overlaps layer 'given'",
    ),
    (
        "layer: mask 0",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, tile_mask=0),
        ArgumentError,
        "tile_mask is 0; allowed are 1 to 3$",
    ),
    (
        "layer: mask",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, tile_mask=4),
        ArgumentError,
        "tile_mask is 4; allowed are 1 to 3$",
    ),
    (
        "layer: mask below 0",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, tile_mask=-1),
        ArgumentError,
        "tile_mask is -1; allowed are 1 to 3$",
    ),
    (
        "layer: mask type",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, tile_mask=1.0),
        TypeError,
        "tile_mask must be",
    ),
    (
        "layer: too deep",
        lambda s: TFMBSLinear(1 << 40, 1, device="meta", fabric=s.fabric),
        ArgumentError,
        "in_features",
    ),
    ("layer.name", setter(layer, "name", ""), TypeError, "non-empty"),
    ("layer.name type", setter(layer, "name", 3), TypeError, "non-empty string"),
    ("layer.ste_clip", setter(layer, "ste_clip", -1.0), ValueError, "above 0"),
    ("layer.ste_clip type", setter(layer, "ste_clip", "1"), TypeError, ""),
    ("layer.activation", setter(layer, "activation", "int8"), AttributeError, ""),
    ("layer.weight_addr", setter(layer, "weight_addr", BANK_B), PlacementError, "Bank A"),
    (
        "layer.weight_addr overlap",
        setter(layer, "weight_addr", BANK_A + 4 * 40),
        PlacementError,
        "overlaps layer 'given'",
    ),
    ("layer.weight_addr type", setter(layer, "weight_addr", 1.5), TypeError, "must be an integer"),
    ("layer.tile_mask", setter(layer, "tile_mask", 0), ArgumentError, "allowed are 1 to 3$"),
    ("layer.tile_mask type", setter(layer, "tile_mask", "1"), TypeError, "must be an integer"),
    (
        "pin: no room",
        lambda s: TFMBSLinear(200, 2, fabric=s.other).pin(),
        PlacementError,
        "cannot be pinned",
    ),
    # a user's quantizer
    (
        "quantizer: no pair",
        lambda s: broken_layer(s, None, None) and None,
        ArgumentError,
        "must give tensors, not NoneType and NoneType",
    ),
    (
        "quantizer: dtype",
        lambda s: broken_layer(s, TRITS.float(), ONE),
        ArgumentError,
        "trits are torch.float32",
    ),
    *(
        (
            f"{what}: value {value}",
            lambda s, value=value, read=read: read(
                TFMBSLinear(20, 7, fabric=s.other, weight_quantizer=Broken((TRITS + value, ONE)))
            ),
            ArgumentError,
            f"the weight quantizer gave {value} at row 0, column 0; allowed are -1, 0 and",
        )
        for what, read in (
            ("quantized_weight", lambda layer: layer.quantized_weight()),
            ("telemetry_hint", lambda layer: layer.telemetry_hint),
            ("prefetch", lambda layer: layer.prefetch()),
        )
        for value in (-128, -2, 2, 127)
    ),
    (
        "quantizer: layout",
        lambda s: broken_layer(s, TRITS.to_sparse(), ONE),
        ArgumentError,
        "quantizer 'broken': trits: layout torch.sparse_coo",
    ),
    (
        "quantizer: value",
        lambda s: broken_layer(s, TRITS + 2, ONE),
        ArgumentError,
        "the weight quantizer gave 2 at row 0, column 0; allowed are -1, 0 and",
    ),
    (
        "quantizer: shape",
        lambda s: broken_layer(s, TRITS[:5], ONE),
        ArgumentError,
        "they must be int8 of the weight's",
    ),
    (
        "quantizer: vector",
        lambda s: broken_layer(s, TRITS[0], ONE),
        ArgumentError,
        "they must be int8 of the weight's",
    ),
    (
        "quantizer: scales",
        lambda s: broken_layer(s, TRITS, torch.ones(3)),
        ArgumentError,
        "float64 of 1 or 7",
    ),
    (
        "quantizer: scale type",
        lambda s: broken_layer(s, TRITS, ONE.int()),
        ArgumentError,
        "scale is torch.int32 of 1 values",
    ),
    # TFMBSLinearFunction
    (
        "function: layer",
        lambda s: TFMBSLinearFunction.apply(s.x, s.layer.weight, None, 3),
        TypeError,
        "layer must be",
    ),
    (
        "function: list",
        lambda s: TFMBSLinearFunction.apply([1.0], s.layer.weight),
        TypeError,
        "must be Tensor, not list",
    ),
    (
        "function: weight",
        lambda s: TFMBSLinearFunction.apply(s.x, None),
        TypeError,
        "must be Tensor, not NoneType",
    ),
    (
        "function: vector",
        lambda s: TFMBSLinearFunction.apply(s.x, torch.ones(20)),
        TypeError,
        "matrix",
    ),
    (
        "function: features",
        lambda s: TFMBSLinearFunction.apply(s.x[:, :19], s.layer.weight),
        RuntimeError,
        "cannot be multiplied",
    ),
    (
        "function: other weight",
        lambda s: TFMBSLinearFunction.apply(s.x, torch.ones(3, 20), None, s.layer),
        ArgumentError,
        "was given 3 x 20",
    ),
]


@each(CASES)
def test_bad_input_is_refused_and_changes_nothing(
    stage: Stage, call: Callable[[Stage], Any], error: type[BaseException], words: str
) -> None:
    assert_refused(stage, call, error, words)
