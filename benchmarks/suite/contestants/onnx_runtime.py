"""ONNX Runtime: dynamic int8, and two-bit weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .base import Call, Contestant, Layer, Weights

OPSET, IR_VERSION = 20, 10


_pools: list[int] = []  # the threads of the process's pool, once it is made


def share_pool(threads: int) -> None:
    """Has a pool that all sessions of the process can share. It is made once."""
    import onnxruntime

    if not _pools:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)  # within a node, and among nodes
        _pools.append(threads)
    if _pools != [threads]:
        raise RuntimeError(f"ONNX Runtime's pool has {_pools[0]} threads already, not {threads}")


class SessionLayer(Layer):
    """Inputs and outputs are bound once, so that a call allocates and copies nothing."""

    def __init__(self, session: Any, weight_bytes: int, outputs: int) -> None:
        self.session, self.weight_bytes, self.outputs = session, weight_bytes, outputs

    def bind(self, x: Tensor) -> Call:
        import onnxruntime

        value = onnxruntime.OrtValue.ortvalue_from_numpy
        output = np.zeros((x.shape[0], self.outputs), np.float32)
        inputs, outputs = value(x.numpy()), value(output)
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("x", inputs)
        binding.bind_ortvalue_output("y", outputs)
        run = self.session.run_with_iobinding

        def call() -> Any:
            run(binding)
            return outputs

        return call


class OnnxRuntime(Contestant):
    activation = "int8"
    package = "onnxruntime"
    tolerance = 2e-2
    holdable = ()  # MLAS chooses by the CPU, and nothing keeps it from that

    def __init__(self, threads: int, kernels: str, held: bool = False) -> None:
        super().__init__(threads, kernels, held)
        import onnx
        import onnxruntime

        self.onnx, self.runtime = onnx, onnxruntime
        self.session_options = onnxruntime.SessionOptions()
        if threads == 1:  # the caller's, so no pool, which every session of the process had to use
            self.session_options.intra_op_num_threads = 1
            return
        # Its threads spin between calls, as by default. One pool for all sessions: each of many
        # cold layers would leave a thread of its own spinning beside the next one's.
        share_pool(threads)
        self.session_options.use_per_session_threads = False

    def session(self, nodes: list[Any], constants: dict[str, Any], outputs: int) -> Any:
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        kind = self.onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "layer",
            [helper.make_tensor_value_info("x", kind, ["rows", None])],
            [helper.make_tensor_value_info("y", kind, ["rows", outputs])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1),
            ],
            ir_version=IR_VERSION,
        )  # fmt: skip
        return self.runtime.InferenceSession(
            model.SerializeToString(), self.session_options, ["CPUExecutionProvider"]
        )

    def check(self, call: Call, x: Tensor, weights: Weights) -> dict[str, Any]:
        return super().check(lambda: call().numpy(), x, weights)


class DynamicInt8(OnnxRuntime):
    """The nodes that its quantize_dynamic writes, which the runtime fuses."""

    name = "ONNX Runtime dynamic int8"

    def build(self, weights: Weights) -> Layer:
        node = self.onnx.helper.make_node
        nodes = [
            node("DynamicQuantizeLinear", ["x"], ["q", "q_scale", "q_zero"]),
            node("MatMulInteger", ["q", "w", "q_zero", "w_zero"], ["sums"]),
            node("Cast", ["sums"], ["floats"], to=self.onnx.TensorProto.FLOAT),
            node("Mul", ["q_scale", "w_scale"], ["scale"]),
            node("Mul", ["floats", "scale"], ["y"]),
        ]
        constants = {
            "w": np.ascontiguousarray(weights.trits.T),
            "w_zero": np.int8(0),
            "w_scale": np.float32(1),
        }
        constants = {name: np.asarray(value) for name, value in constants.items()}
        session = self.session(nodes, constants, weights.outputs)
        return SessionLayer(session, weights.trits.size, weights.outputs)


class TwoBits(OnnxRuntime):
    """MatMulNBits of 2 bits; accuracy level 4 quantizes activations to int8."""

    name = "ONNX Runtime MatMulNBits, 2 bits"
    block = 128

    def build(self, weights: Weights) -> Layer:
        if "two bits" not in weights.shared:
            blocks = -(-weights.depth // self.block)
            codes = np.full((weights.outputs, blocks * self.block), 2, np.uint8)  # 2 is zero
            codes[:, : weights.depth] += weights.trits.view(np.uint8)  # wraps: −1 is 255
            fours = codes.reshape(weights.outputs, blocks, self.block // 4, 4)
            packed = fours[..., 0] | fours[..., 1] << 2 | fours[..., 2] << 4 | fours[..., 3] << 6
            weights.shared["two bits"] = packed, np.ones((weights.outputs, blocks), np.float32)
        packed, scales = weights.shared["two bits"]
        nodes = [
            self.onnx.helper.make_node(
                "MatMulNBits", ["x", "w", "scales"], ["y"], domain="com.microsoft",
                K=weights.depth, N=weights.outputs, bits=2, block_size=self.block,
                accuracy_level=4,
            )
        ]  # fmt: skip
        session = self.session(nodes, {"w": packed, "scales": scales}, weights.outputs)
        return SessionLayer(session, packed.nbytes + scales.nbytes, weights.outputs)
