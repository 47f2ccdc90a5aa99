"""Graphs of ONNX operators that the front end's tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(7)


@dataclass(frozen=True)
class Constant:
    """An input that is an initializer."""

    array: np.ndarray


@dataclass(frozen=True)
class Case:
    """One node: its inputs (arrays are the graph's inputs, None is left out) and attributes."""

    op: str
    inputs: Sequence[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    domain: str = ""
    #: Inputs' sizes must be known for it.
    static: bool = False

    @property
    def arrays(self) -> list[np.ndarray]:
        return [value for value in self.inputs if isinstance(value, np.ndarray)]


def value_info(name: str, array: np.ndarray, dims: Sequence[Any] | None = None) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape if dims is None else dims)


def model(cases: Sequence[Case], opset: int = 20, dims: str = "static") -> onnx.ModelProto:
    """One graph of independent nodes, case i's outputs after case i-1's.

    dims: "static"; "batch", where first sizes are names of their own size; "unknown", where every
    size of every input has a name of its own.
    """
    nodes, inputs, outputs, initializers = [], [], [], []
    for number, case in enumerate(cases):
        names = []
        for place, value in enumerate(case.inputs):
            name = f"i{number}_{place}"
            if value is None:
                names.append("")
                continue
            names.append(name)
            if isinstance(value, Constant):
                initializers.append(numpy_helper.from_array(value.array, name))
                continue
            sizes: list[Any] = list(value.shape)
            if dims == "batch" and sizes and not case.static:
                sizes[0] = f"b{sizes[0]}"
            elif dims == "unknown" and not case.static:
                sizes = [f"{name}_{axis}" for axis in range(len(sizes))]
            inputs.append(value_info(name, value, sizes))
        results = [f"o{number}_{place}" for place in range(case.outputs)]
        nodes.append(
            helper.make_node(
                case.op, names, results, name=f"node{number}", domain=case.domain, **case.attributes
            )
        )
        outputs += [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph(nodes, "cases", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def floats(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def whole(*shape: int, low: int = -5, high: int = 6, dtype: Any = np.int64) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


def truths(*shape: int) -> np.ndarray:
    return RNG.random(shape) < 0.5


def vector(*values: int) -> Constant:
    return Constant(np.array(values, np.int64))


def number(value: float, dtype: Any = np.float32) -> Constant:
    return Constant(np.array(value, dtype))


X = floats(3, 4)
POSITIVE = np.abs(X) + np.float32(0.1)
SPECIAL = np.array([[np.nan, np.inf, -np.inf, -0.0], [0.0, 1e-30, -3e38, 88.0]], np.float32)

UNARY = [
    *[
        Case(op, [x])
        for x in (X, SPECIAL)
        for op in [
            "Abs",
            "Neg",
            "Sign",
            "Relu",
            "LeakyRelu",
            "Sigmoid",
            "Tanh",
            "Erf",
            "Elu",
            "HardSigmoid",
            "Softplus",
            "Exp",
            "Floor",
            "Ceil",
            "Round",
            "Softsign",
            "Reciprocal",
            "Identity",
            "Selu",
            "Celu",
            "ThresholdedRelu",
            "HardSwish",
            "Mish",
            "Gelu",
        ]
    ],
    *[Case(op, [POSITIVE]) for op in ("Log", "Sqrt")],
    *[Case(op, [X]) for op in ("Sin", "Cos", "Atan", "IsNaN")],
    *[Case(op, [SPECIAL]) for op in ("IsNaN", "IsInf", "Sqrt", "Log")],
    Case("IsInf", [SPECIAL], {"detect_negative": 0}),
    Case("Gelu", [X], {"approximate": "tanh"}),
    Case("LeakyRelu", [X], {"alpha": 0.3}),
    Case("Elu", [X], {"alpha": 0.5}),
    Case("HardSigmoid", [X], {"alpha": 0.4, "beta": 0.1}),
    Case("Clip", [X, number(-0.5), number(0.5)]),
    Case("Clip", [X, None, number(0.25)]),
    Case("Clip", [X, number(-0.25)]),
    Case("Clip", [X]),
    Case("Abs", [whole(3, 4)]),
    Case("Neg", [whole(3, 4, dtype=np.int32)]),
    Case("Sign", [whole(3, 4)]),
    Case("Not", [truths(3, 4)]),
    Case("PRelu", [X, floats(4)]),
    Case("Cast", [X * 10], {"to": TensorProto.INT64}),
    Case("Cast", [X], {"to": TensorProto.DOUBLE}),
    Case("Cast", [X], {"to": TensorProto.FLOAT16}),
    Case("Cast", [X], {"to": TensorProto.BOOL}),
    Case("Cast", [whole(3, 4)], {"to": TensorProto.FLOAT}),
    Case("Cast", [whole(3, 4, low=0, high=256, dtype=np.uint8)], {"to": TensorProto.FLOAT}),
    Case("Cast", [whole(3, 4, low=0, high=256, dtype=np.uint8)], {"to": TensorProto.INT32}),
    Case("Cast", [truths(3, 4)], {"to": TensorProto.FLOAT}),
    Case("Cast", [truths(3, 4)], {"to": TensorProto.INT64}),
    Case("Cast", [whole(3, 4, low=-1, high=2)], {"to": TensorProto.BOOL}),
    Case("Dropout", [X]),
    *[
        Case(op, [floats(3, 4, dtype=np.float16)])
        for op in ("Relu", "Sigmoid", "Neg", "Exp", "Abs")
    ],
    *[Case(op, [floats(3, 4, dtype=np.float64)]) for op in ("Relu", "Sigmoid", "Exp", "Tanh")],
]

_PAIRS = [
    (floats(3, 4), floats(3, 4)),
    (floats(3, 4), floats(4)),
    (floats(3, 1), floats(1, 4)),
    (floats(2, 1, 4), floats(3, 1)),
    (floats(3, 4), Constant(floats(1, 4))),
    (floats(3, 4), number(0.75)),
    (floats(), floats(3, 4)),
    (floats(0, 4), floats(4)),
]
BINARY = [
    *[Case(op, [a, b]) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max") for a, b in _PAIRS],
    *[Case(op, list(_PAIRS[2])) for op in ("Less", "Greater", "LessOrEqual", "GreaterOrEqual")],
    *[Case(op, [whole(3, 4), whole(4)]) for op in ("Add", "Sub", "Mul", "Equal", "Less", "Max")],
    Case("Div", [whole(3, 4), Constant(np.array([1, 2, -3, -1], np.int64))]),
    Case("Mod", [whole(3, 4), Constant(np.array([1, 2, -3, 5], np.int64))]),
    Case("Mod", [floats(3, 4), Constant(floats(4))], {"fmod": 1}),
    Case("Pow", [POSITIVE, floats(4)]),
    Case("Pow", [X, number(2.0)]),
    Case("Pow", [X, number(3, np.int64)]),
    Case("Max", [floats(3, 4), floats(4), floats(3, 1)]),
    Case("Sum", [floats(3, 4), floats(4), floats(1)]),
    Case("Mean", [floats(3, 4), floats(4)]),
    *[Case(op, [truths(3, 4), truths(4)]) for op in ("And", "Or", "Xor")],
    Case("Where", [truths(3, 1), floats(3, 4), floats(4)]),
    Case("Where", [truths(3, 4), floats(3, 4), number(0.0)]),
    Case("Min", [SPECIAL, np.flip(SPECIAL, 1).copy()]),
    Case("Max", [SPECIAL, np.flip(SPECIAL, 1).copy()]),
    Case("Equal", [SPECIAL, SPECIAL.copy()]),
    Case("Add", [floats(3, 4, dtype=np.float16), floats(4, dtype=np.float16)]),
]

_CUBE = floats(2, 3, 4)
SHAPE = [
    Case("Flatten", [_CUBE]),
    *[Case("Flatten", [_CUBE], {"axis": axis}) for axis in (0, 2, 3, -1)],
    *[
        Case("Reshape", [_CUBE, vector(*shape)])
        for shape in ((2, 12), (-1, 4), (0, -1), (0, 0, 2, 2), (24,), (4, 6), (2, 1, 12), (-1, 1))
    ],
    Case("Reshape", [floats(1, 1), Constant(np.zeros(0, np.int64))]),
    Case("Reshape", [floats(1), Constant(np.ones(2, np.int64))]),
    Case("Reshape", [floats(0, 4), vector(0, 2, 2)], {"allowzero": 1}),
    Case("Squeeze", [floats(3, 1, 4, 1), vector(1, -1)]),
    Case("Squeeze", [floats(3, 1, 4, 1)], static=True),
    Case("Squeeze", [floats(1, 1), vector(0, 1)]),
    Case("Unsqueeze", [_CUBE, vector(0, -1)]),
    Case("Unsqueeze", [floats(), vector(0)]),
    Case("Unsqueeze", [floats(3), vector(0, 2)]),
    Case("Transpose", [_CUBE]),
    Case("Transpose", [_CUBE], {"perm": [1, 0, 2]}),
    Case("Shape", [_CUBE]),
    Case("Shape", [_CUBE], {"start": 1, "end": -1}),
    Case("Size", [_CUBE]),
    Case("Expand", [floats(3, 1), vector(2, 1, 4)]),
    Case("Concat", [floats(2, 3), floats(2, 4)], {"axis": 1}),
    Case("Concat", [floats(2, 3), floats(1, 3), floats(0, 3)], {"axis": 0}),
    Case("Concat", [floats(2, 3), Constant(floats(2, 1))], {"axis": -1}),
    Case("Slice", [_CUBE, vector(1), vector(3), vector(2)]),
    Case("Slice", [_CUBE, vector(-2, 0), vector(2**62, -1), vector(1, 2), vector(1, 2)]),
    Case("Slice", [_CUBE, vector(5), vector(9), vector(1)]),
    *[
        Case("Slice", [_CUBE, vector(start), vector(end), vector(axis), vector(step)])
        for start, end, axis, step in (
            (-1, -(2**63), 2, -1),
            (2**63 - 1, 0, 2, -2),
            (-2, 1, 2, -1),
            (1, 9, 1, -1),
            (-1, -9, 1, -3),
            (-7, -9, 1, -1),
        )
    ],
    Case("Slice", [_CUBE, vector(-1, 0), vector(-9, 1), vector(2, 0), vector(-1, 1)]),
    Case("Slice", [floats(0, 3), vector(-1), vector(-9), vector(0), vector(-1)]),
    Case("Split", [_CUBE, vector(1, 3)], {"axis": 2}, outputs=2),
    Case("Split", [_CUBE], {"axis": 1, "num_outputs": 2}, outputs=2),
    Case("Split", [floats(7, 2)], {"num_outputs": 4}, outputs=4),
    Case("Tile", [floats(3, 2), vector(2, 3)]),
    Case("Tile", [_CUBE, vector(1, 2, 1)]),
    Case("Tile", [_CUBE, vector(1, 1, 1)]),
    Case("Tile", [floats(2), vector(0)]),
    *[Case("Trilu", [x], {"upper": upper}) for x in (X, _CUBE) for upper in (0, 1)],
    *[Case("Trilu", [_CUBE, number(k, np.int64)]) for k in (-1, 2, 7, -9)],
    Case("Trilu", [whole(4, 3), number(-1, np.int64)], {"upper": 0}),
    Case("Gather", [_CUBE, vector(0, 2, -1)], {"axis": 2}),
    Case("Gather", [_CUBE, number(1, np.int64)], {"axis": 1}),
    Case("Gather", [floats(5, 3), whole(2, 2, low=0, high=5)]),
    Case("GatherND", [_CUBE, whole(4, 1, low=-2, high=2)], static=True),
    Case("GatherND", [_CUBE, whole(5, 2, low=-2, high=2)], static=True),
    Case("GatherND", [_CUBE, whole(2, 3, 3, low=0, high=2)], static=True),
    Case("GatherND", [_CUBE, whole(2, 2, 1, low=-3, high=3)], {"batch_dims": 1}, static=True),
    Case("GatherElements", [_CUBE, whole(2, 3, 5, low=-4, high=4)], {"axis": 2}),
    Case("GatherElements", [X, whole(2, 4, low=0, high=3)]),
    Case("Pad", [_CUBE, vector(0, 1, 0, 0, 0, 2), number(1.5)]),
    Case("ConstantOfShape", [vector(2, 3)]),
]

_REDUCTIONS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
]
REDUCTION = [
    *[Case(op, [_CUBE, vector(1)]) for op in _REDUCTIONS],
    *[Case(op, [_CUBE, vector(0, -1)], {"keepdims": 0}) for op in _REDUCTIONS],
    *[Case(op, [_CUBE], {"keepdims": 0}) for op in ("ReduceSum", "ReduceMean", "ReduceMax")],
    Case("ReduceSum", [_CUBE], {"noop_with_empty_axes": 1}),
    Case("ReduceSum", [whole(3, 4), vector(1)]),
    Case("ReduceLogSum", [POSITIVE, vector(1)]),
    *[Case(op, [_CUBE]) for op in ("Softmax", "LogSoftmax")],
    *[Case(op, [_CUBE], {"axis": 1}) for op in ("Softmax", "LogSoftmax")],
    Case("Softmax", [floats(3, 5) * 100]),
    Case("Softmax", [floats(3, 5, dtype=np.float64)]),
    *[Case(op, [_CUBE], {"axis": axis}) for op in ("ArgMax", "ArgMin") for axis in (0, 2)],
    Case("ArgMax", [_CUBE], {"axis": 1, "keepdims": 0}),
    Case("ArgMax", [np.ones((2, 3), np.float32)], {"axis": 1, "select_last_index": 1}),
    Case("ArgMax", [np.ones((2, 3), np.float32)], {"axis": 1}),
    Case("LpNormalization", [_CUBE], {"axis": 1, "p": 1}),
    Case("LpNormalization", [_CUBE]),
    Case("ReduceSum", [floats(0, 4), vector(0)]),
]

RUNNING = [
    *[
        Case("CumSum", [_CUBE, number(axis, np.int64)], {"exclusive": less, "reverse": back})
        for axis in (0, 2, -2)
        for less in (0, 1)
        for back in (0, 1)
    ],
    Case("CumSum", [whole(4, 3, dtype=np.int32), vector(0)]),
    Case("CumSum", [floats(0, 3), vector(0)]),
    Case("Hardmax", [_CUBE], {"axis": 1}),
    Case("Hardmax", [np.ones((2, 3), np.float32)]),
]

_IMAGE = floats(2, 4, 7, 6)
_WINDOW: dict[str, Any] = {"kernel_shape": [3, 2]}
WINDOWS = [
    Case("Conv", [_IMAGE, Constant(floats(5, 4, 3, 2))]),
    Case("Conv", [_IMAGE, Constant(floats(6, 2, 3, 3)), floats(6)], {"group": 2, "pads": [1] * 4}),
    Case("Conv", [_IMAGE, Constant(floats(4, 1, 3, 3))], {"group": 4, "strides": [2, 1]}),
    Case(
        "Conv", [_IMAGE, Constant(floats(2, 4, 2, 2))], {"dilations": [2, 3], "pads": [1, 0, 0, 2]}
    ),
    *[
        Case("Conv", [_IMAGE, Constant(floats(2, 4, 3, 2))], {"auto_pad": pad, "strides": [2, 2]})
        for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ],
    Case("Conv", [floats(1, 2, 9), Constant(floats(3, 2, 4))]),
    *[
        Case(op, [_IMAGE], {**_WINDOW, **more})
        for op in ("MaxPool", "AveragePool", "LpPool")
        for more in (
            {},
            {"strides": [2, 3], "pads": [1, 1, 2, 0]},
            {"strides": [2, 2], "ceil_mode": 1},
            {"auto_pad": "SAME_UPPER"},
        )
    ],
    Case("AveragePool", [_IMAGE], {**_WINDOW, "pads": [1, 1, 0, 1], "count_include_pad": 1}),
    Case("MaxPool", [_IMAGE], {**_WINDOW, "dilations": [2, 2]}),
    Case("MaxPool", [whole(1, 2, 5, low=0, high=255, dtype=np.uint8)], {"kernel_shape": [3]}),
    *[Case(op, [_IMAGE]) for op in ("GlobalAveragePool", "GlobalMaxPool")],
    *[Case("DepthToSpace", [_IMAGE], {"blocksize": 2, "mode": mode}) for mode in ("DCR", "CRD")],
    Case("SpaceToDepth", [floats(1, 2, 4, 6)], {"blocksize": 2}),
]

_BYTES = whole(3, 4, low=0, high=256, dtype=np.uint8)
_SCALES = Constant(np.array([0.5, 0.01, 2.0, 0.3], np.float32))
QUANTIZATION = [
    Case("DequantizeLinear", [_BYTES, number(0.1), number(128, np.uint8)]),
    Case("DequantizeLinear", [whole(3, 4, dtype=np.int8), _SCALES], {"axis": 1}),
    Case("DequantizeLinear", [whole(3, 4, dtype=np.int32), number(0.1)]),
    Case("QuantizeLinear", [X * 100, number(0.5), number(3, np.int8)]),
    Case("QuantizeLinear", [X * 100, _SCALES, Constant(np.array([0, 9, 128, 255], np.uint8))]),
    Case("DynamicQuantizeLinear", [X], outputs=3),
]

# Integers without a sign, in and out.
UNSIGNED = [
    *[
        Case(op, [RNG.integers(2**31, 2**bits, (3, 4), kind), whole(4, low=1, dtype=kind)])
        for bits, kind in ((32, np.uint32), (64, np.uint64))
        for op in ("Div", "Max", "Less", "Add")
    ],
    *[Case("Cast", [_BYTES], {"to": kind}) for kind in (TensorProto.UINT16, TensorProto.UINT64)],
    *[
        Case("BitShift", [_BYTES, whole(4, low=0, high=8, dtype=np.uint8)], {"direction": way})
        for way in ("LEFT", "RIGHT")
    ],
    *[Case(op, [_BYTES, _BYTES[::-1].copy()]) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")],
    Case("BitwiseNot", [_BYTES]),
]

_CHANNELS = [Constant(floats(3)), Constant(floats(3)), Constant(floats(3))]
_VARIANCE = Constant(np.abs(floats(3)) + np.float32(0.1))
NORMALIZATION = [
    Case("BatchNormalization", [floats(5, 3), *_CHANNELS, _VARIANCE]),
    Case("BatchNormalization", [floats(2, 3, 4), *_CHANNELS, _VARIANCE], {"epsilon": 0.1}),
    Case("LayerNormalization", [_CUBE, Constant(floats(4)), Constant(floats(4))]),
    Case("LayerNormalization", [_CUBE, Constant(floats(3, 4))], {"axis": 1}),
    Case("LayerNormalization", [_CUBE, floats(4), floats(4)], {"epsilon": 0.01}),
]

PRODUCTS = [
    Case("MatMul", [floats(3, 4), floats(4, 5)]),
    Case("MatMul", [floats(2, 3, 4), floats(4, 5)]),
    Case("MatMul", [floats(2, 3, 4), floats(2, 4, 5)]),
    Case("MatMul", [floats(2, 1, 3, 4), floats(3, 4, 5)]),
    Case("MatMul", [floats(4), floats(4, 5)]),
    Case("MatMul", [floats(3, 4), floats(4)]),
    Case("MatMul", [floats(4), floats(4)]),
    Case("MatMul", [floats(0, 4), floats(4, 5)]),
    Case("MatMul", [floats(3, 4, dtype=np.float64), floats(4, 5, dtype=np.float64)]),
    Case("MatMul", [floats(2, 3, 4), Constant(floats(2, 4, 5))]),
    *[
        Case("Einsum", parts, {"equation": equation})
        for equation, *parts in (
            ("ij,jk->ik", floats(3, 4), floats(4, 5)),
            ("bij, bjk -> bik", floats(2, 3, 4), floats(2, 4, 5)),
            ("...ii->...i", floats(2, 3, 3)),
            ("ij", floats(3, 4)),
            ("i,i", floats(4), floats(4)),
            ("bhqd,bhkd->bhqk", floats(2, 2, 3, 4), floats(2, 2, 5, 4)),
        )
    ],
    Case("Gemm", [floats(3, 4), floats(4, 5)]),
    Case("Gemm", [floats(4, 3), floats(5, 4), floats(5)], {"transA": 1, "transB": 1}),
    Case("Gemm", [floats(3, 4), floats(4, 5), floats(3, 1)], {"alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [floats(3, 4), floats(4, 5), floats(1)], {"beta": 0.0}),
    Case(
        "MatMulInteger",
        [whole(3, 4, low=0, high=256, dtype=np.uint8), whole(4, 5, dtype=np.int8)],
    ),
    Case(
        "MatMulInteger",
        [
            whole(3, 4, low=0, high=256, dtype=np.uint8),
            Constant(whole(4, 5, dtype=np.int8)),
            number(128, np.uint8),
            number(3, np.int8),
        ],
    ),
]

MACHINE_LEARNING = [
    Case("Scaler", [X], {"offset": [0.5], "scale": [2.0]}, domain="ai.onnx.ml"),
    Case("Scaler", [X], {"offset": [0.5, 1, 2, 3], "scale": [2.0, 1, 0.5, 3]}, domain="ai.onnx.ml"),
    *[Case("Normalizer", [X], {"norm": norm}, domain="ai.onnx.ml") for norm in ("L1", "L2", "MAX")],
    Case("ArrayFeatureExtractor", [X, vector(2, 0)], domain="ai.onnx.ml"),
    Case("Binarizer", [X], {"threshold": 0.1}, domain="ai.onnx.ml"),
]

FAMILIES = {
    "unary": UNARY,
    "binary": BINARY,
    "shape": SHAPE,
    "reduction": REDUCTION,
    "normalization": NORMALIZATION,
    "products": PRODUCTS,
    "running": RUNNING,
    "windows": WINDOWS,
    "quantization": QUANTIZATION,
    "unsigned": UNSIGNED,
    "machine_learning": MACHINE_LEARNING,
}
