"""Valid ONNX models with faults put in: bytes that are changed, and fields that are."""

from __future__ import annotations

import random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def seed_models() -> list[onnx.ModelProto]:
    """Small models that together use layers, shapes, control of broadcasting and constants."""
    rng = np.random.default_rng(5)

    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])
    perceptron = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "fc1", transB=1, alpha=0.5),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node("MatMul", ["r", "w2"], ["m"], "fc2"),
            helper.make_node("Add", ["m", "b2"], ["y"], "add"),
            helper.make_node("Softmax", ["y"], ["z"], "softmax", axis=1),
        ],
        "perceptron",
        [x],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 3])],
        [tensor("w1", 5, 6), tensor("b1", 5), tensor("w2", 5, 3), tensor("b2", 3)],
    )
    shapes = helper.make_graph(
        [
            helper.make_node("Shape", ["x"], ["s"], "shape"),
            helper.make_node("Gather", ["s", "zero"], ["n"], "gather", axis=0),
            helper.make_node("Unsqueeze", ["n", "axes"], ["n1"], "unsqueeze"),
            helper.make_node("Concat", ["n1", "minus"], ["t"], "concat", axis=0),
            helper.make_node("Reshape", ["x", "t"], ["f"], "reshape"),
            helper.make_node("Transpose", ["f"], ["g"], "transpose", perm=[1, 0]),
            helper.make_node("Slice", ["g", "axes", "two", "axes"], ["k"], "slice"),
            helper.make_node("ReduceMean", ["k", "axes"], ["y"], "mean", keepdims=1),
            helper.make_node("Clip", ["y", "low"], ["z"], "clip"),
            helper.make_node("ArgMax", ["f"], ["a"], "argmax", axis=1),
        ],
        "shapes",
        [x],
        [
            helper.make_tensor_value_info("z", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("a", TensorProto.INT64, None),
        ],
        [
            numpy_helper.from_array(np.array(0, np.int64), "zero"),
            numpy_helper.from_array(np.array([0], np.int64), "axes"),
            numpy_helper.from_array(np.array([2], np.int64), "two"),
            numpy_helper.from_array(np.array([-1], np.int64), "minus"),
            numpy_helper.from_array(np.array(-0.5, np.float32), "low"),
        ],
    )
    own = helper.make_graph(
        [
            helper.make_node(
                "TernaryLinear",
                ["x", "w", "scale", "b"],
                ["y"],
                "own",
                domain="pytfmbs",
                in_features=6,
                out_features=5,
                tile_mask=1,
                weight_addr=4096,
                activation="int8",
                layer="fc",
                weight_quantizer="sign",
            ),
            helper.make_node("BatchNormalization", ["y", "b", "b", "b", "v"], ["z"], "norm"),
        ],
        "own",
        [x],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 5])],
        [
            numpy_helper.from_array(np.full(6, 121, np.uint8), "w"),
            numpy_helper.from_array(np.ones(1, np.float32), "scale"),
            tensor("b", 5),
            numpy_helper.from_array(np.ones(5, np.float32), "v"),
        ],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("pytfmbs", 1)]
    return [
        helper.make_model(graph, opset_imports=imports, ir_version=9)
        for graph in (perceptron, shapes, own)
    ]


def mutated_bytes(random_: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut out, doubled or cut off."""
    out = bytearray(data)
    for _ in range(random_.randint(1, 4)):
        if not out:
            break
        place = random_.randrange(len(out))
        what = random_.randrange(5)
        if what == 0:
            out[place] = random_.randrange(256)
        elif what == 1:
            del out[place : place + random_.randint(1, 8)]
        elif what == 2:
            out[place:place] = out[place : place + random_.randint(1, 16)]
        elif what == 3:
            out[place] ^= 1 << random_.randrange(8)
        elif random_.random() < 0.1:
            del out[place:]
    return bytes(out)


_NUMBERS = (-(2**63), -(2**31), -7, -2, -1, 0, 1, 2, 3, 5, 6, 7, 64, 2**31, 2**62, 2**63 - 1)


def mutated_fields(random_: random.Random, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with one to three faults in its fields."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for _ in range(random_.randint(1, 3)):
        node = random_.choice(list(graph.node)) if graph.node else None
        values = [n for m in graph.node for n in (*m.input, *m.output)] + ["", "nothing"]
        what = random_.randrange(12)
        if what == 0 and node is not None and node.input:
            node.input[random_.randrange(len(node.input))] = random_.choice(values)
        elif what == 1 and node is not None and node.output:
            node.output[random_.randrange(len(node.output))] = random_.choice(values)
        elif what == 2 and node is not None:
            other = random_.choice(list(graph.node))
            node.op_type = random_.choice([other.op_type, "Loop", "If", "Nothing", "Split", "Pow"])
        elif what == 3 and node is not None and node.attribute:
            attribute = random_.choice(list(node.attribute))
            attribute.i = random_.choice(_NUMBERS)
            attribute.f = random_.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
            if attribute.ints:
                attribute.ints[0] = random_.choice(_NUMBERS)
        elif what == 4 and node is not None and node.attribute:
            random_.choice(list(node.attribute)).type = random_.randrange(15)
        elif what == 5 and graph.initializer:
            tensor = random_.choice(list(graph.initializer))
            if tensor.dims:
                tensor.dims[random_.randrange(len(tensor.dims))] = random_.choice(_NUMBERS)
            else:
                tensor.dims.append(random_.choice(_NUMBERS))
        elif what == 6 and graph.initializer:
            random_.choice(list(graph.initializer)).data_type = random_.randrange(25)
        elif what == 7 and graph.initializer:
            del graph.initializer[random_.randrange(len(graph.initializer))]
        elif what == 8 and graph.input and graph.input[0].type.tensor_type.shape.dim:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[random_.randrange(len(dims))].dim_value = random_.choice(_NUMBERS)
        elif what == 9 and node is not None:
            node.input.append(random_.choice(values))
        elif what == 10 and node is not None:
            node.attribute.append(
                onnx.helper.make_attribute(
                    random_.choice(["axis", "axes", "perm", "to", "alpha"]),
                    random_.choice([0, 1, -3, [0, 0], [9], 0.5, "text"]),
                )
            )
        elif what == 11 and graph.initializer:
            tensor = random_.choice(list(graph.initializer))
            if tensor.raw_data:
                tensor.raw_data = bytes(random_.randrange(256) for _ in range(len(tensor.raw_data)))
    return copy
