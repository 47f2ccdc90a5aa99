"""What tfmbs-to-linalg makes, compiled and run: the documentation's formulas, bit for bit.

Layers of all element types, forms and shapes, on rows that hold every kind of number; NumPy
computes the same in reference.py.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import pytfmbs
import reference
import torch
from pytfmbs.compiler import compile_module

NAMES = {
    torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16",
}  # fmt: skip
FORMS = ("three ops", "linear", "linear, i8 weights")
LAYER = '{tile_mask = 5 : ui64, telemetry = {layer = "fc", sparsity = 0.3333}}'

pytestmark = pytest.mark.usefixtures("dialect_tools")


@dataclass(frozen=True)
class Layer:
    dtype: torch.dtype
    out_dtype: torch.dtype
    activation: str
    trits: np.ndarray  # [outputs, depth]
    scales: int  # how many: 1 or outputs
    bias: torch.dtype | None
    relu: bool
    form: str
    memrefs: bool
    static_rows: int | None  # None: dynamic

    @property
    def real(self) -> torch.dtype:
        """What the layer computes in."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def text(self, i: int) -> tuple[list[str], str, str]:
        """Arguments, body, and type of the result; values are named after `i`."""
        outputs, depth = self.trits.shape
        rows = "?" if self.static_rows is None else str(self.static_rows)
        real, packed = NAMES[self.real], "i8" not in self.form
        kind = "memref" if self.memrefs else "tensor"
        types = {
            "x": f"{rows}x{depth}x{NAMES[self.dtype]}", "c": f"{self.scales}x{real}",
            "q": f"{rows}x{depth}xi8", "s": f"{rows}x{real}", "a": f"{rows}x{outputs}xi32",
            "y": f"{rows}x{outputs}x{NAMES[self.out_dtype]}",
            "w": f"{outputs}x{depth}x{'!tfmbs.trit' if packed else 'i8'}",
        }  # fmt: skip
        if self.bias is not None:
            types["b"] = f"{outputs}x{NAMES[self.bias]}"
        given = [name for name in ("x", "c", "b") if name in types]
        arguments = [f"%{name}_arg{i}: tensor<{types[name]}>" for name in given]
        lines = []
        for name in given:
            if self.memrefs:
                to = f"tensor<{types[name]}> to memref<{types[name]}>"
                lines.append(
                    f"%{name}{i} = bufferization.to_buffer %{name}_arg{i} read_only : {to}"
                )
            else:
                lines.append(
                    f"%{name}{i} = tensor.cast %{name}_arg{i} : tensor<{types[name]}> to tensor<{types[name]}>"
                )
        t = {name: f"{kind}<{value}>" for name, value in types.items()}
        if packed:
            codes = pytfmbs.pack_pt5(self.trits.reshape(-1)).view(np.int8).tolist() or ""
            lines.append(
                f"%w{i} = tfmbs.weights dense<{codes}> : tensor<{len(codes)}xi8> -> {t['w']}"
            )
        else:
            elements = self.trits.tolist() if self.trits.size else ""
            lines.append(f"%w_tensor{i} = arith.constant dense<{elements}> : tensor<{types['w']}>")
            if self.memrefs:
                lines.append(
                    f"%w{i} = bufferization.to_buffer %w_tensor{i} read_only : tensor<{types['w']}> to {t['w']}"
                )
            else:
                lines.append(f"%w{i} = tensor.cast %w_tensor{i} : {t['w']} to {t['w']}")
        size = "%rows" if self.static_rows is None else ""
        new = "memref.alloc" if self.memrefs else "tensor.empty"
        made = ("q", "s", "a", "y") if self.form == "three ops" else ("y",)
        lines += [f"%{name}_new{i} = {new}({size}) : {t[name]}" for name in made]

        def add(op: str, ins: list[str], outs: list[str], bias: bool = False) -> None:
            def group(names: list[str]) -> str:
                return f"({', '.join(names)} : {', '.join(t[n[1]] for n in names)})"

            results = [out.replace("_new", "") for out in outs]
            left = "" if self.memrefs else f"{', '.join(results)} = "
            arrow = "" if self.memrefs else f" -> {', '.join(t[out[1]] for out in outs)}"
            extra = f" bias{group([f'%b{i}'])}" if bias and self.bias is not None else ""
            lines.append(f"{left}{op} ins{group(ins)}{extra} outs{group(outs)}{arrow}")

        q, s, a, y = (f"%{name}_new{i}" for name in "qsay")
        if self.form == "three ops":
            assert not self.relu
            add(f"tfmbs.quantize {self.activation}", [f"%x{i}"], [q, s])
            q, s = (q, s) if self.memrefs else (f"%q{i}", f"%s{i}")
            add(f"tfmbs.gemv {LAYER}", [q, f"%w{i}"], [a])
            a = a if self.memrefs else f"%a{i}"
            add("tfmbs.dequantize", [a, s, f"%c{i}"], [y], bias=True)
        else:
            relu = " relu" if self.relu else ""
            add(
                f"tfmbs.linear {self.activation}{relu} {LAYER}",
                [f"%x{i}", f"%w{i}", f"%c{i}"],
                [y],
                bias=True,
            )
        if self.memrefs:
            lines.append(
                f"%y{i} = bufferization.to_tensor {y} restrict : {t['y']} to tensor<{types['y']}>"
            )
        return arguments, "".join(f"  {line}\n" for line in lines), f"tensor<{types['y']}>"


def some_layers(rng: np.random.Generator, dtype: torch.dtype) -> list[Layer]:
    """Every form on tensors and on memrefs, with both activations; the rest is drawn."""
    layers = []
    for form, activation, memrefs in itertools.product(FORMS, ("ternary", "int8"), (False, True)):
        outputs, depth = (
            int(rng.choice([0, 1, 2, 3, 17, 40], p=[0.05, 0.2, 0.2, 0.2, 0.2, 0.15])) for _ in "nk"
        )
        bias = rng.choice([None, dtype, torch.float32, torch.float64])
        layers.append(
            Layer(
                dtype=dtype,
                out_dtype=dtype if rng.random() < 0.6 else rng.choice(list(NAMES)),
                activation=activation,
                trits=rng.integers(-1, 2, (outputs, depth)).astype(np.int8),
                scales=outputs if rng.random() < 0.5 and outputs > 0 else 1,
                bias=bias,
                relu=form != "three ops" and bool(rng.random() < 0.7),
                form=form,
                memrefs=memrefs,
                static_rows=int(rng.integers(1, 5)) if rng.random() < 0.2 else None,
            )
        )
    return layers


def some_numbers(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """Rows of one kind each: of all magnitudes, halves that tie, specials, subnormals, zeros."""
    info = torch.finfo(dtype)
    flat = (shape[0], int(np.prod(shape[1:]))) if len(shape) > 1 else (1, shape[0])
    rows = []
    for _ in range(flat[0]):
        normal = rng.standard_normal(flat[1])
        kind = rng.integers(0, 8)
        if kind == 0:
            row = normal * 10.0 ** rng.uniform(np.log10(info.tiny), np.log10(info.max) - 1)
        elif kind == 1:  # a scale of one, products on halves
            row = rng.integers(-254, 255, flat[1]) / 2
            row[: min(1, flat[1])] = 127
        elif kind == 2:
            row = rng.choice([0.0, -0.0, 1.0, -1.0], flat[1])
        elif kind == 3:
            smallest = info.smallest_normal * info.eps
            row = rng.choice(
                [0.0, -0.0, smallest, -smallest, info.smallest_normal, 3 * smallest], flat[1]
            )
        elif kind == 4:
            row = rng.choice([info.max, info.min, 1.0, -1.0], flat[1])
        elif kind == 5:
            row = np.where(
                rng.random(flat[1]) < 0.3, rng.choice([np.inf, -np.inf], flat[1]), normal
            )
        elif kind == 6:
            row = np.where(rng.random(flat[1]) < 0.2, np.nan, normal)
        else:
            row = normal
        rows.append(row)
    return torch.from_numpy(np.array(rows, np.float64).reshape(shape)).to(dtype)


def expected(
    layer: Layer, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    outputs, depth = layer.trits.shape
    trits = layer.trits
    if depth == 0:  # as one input that is zero
        depth, x, trits = 1, torch.zeros(len(x), 1, dtype=x.dtype), np.zeros((outputs, 1), np.int8)
    weight = reference.QuantizedWeight(trits, scale.numpy(), np.zeros(outputs, bool))
    y = reference.linear(
        x, torch.empty(outputs, depth), bias, weight, layer.activation, layer.out_dtype
    )
    if not layer.relu:
        return y
    return torch.relu(y)


@pytest.mark.parametrize("dtype", list(NAMES), ids=list(NAMES.values()))
def test_every_form_gives_the_documented_numbers(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(list(NAMES).index(dtype))
    layers = some_layers(rng, dtype) + some_layers(rng, dtype)
    parts = [layer.text(i) for i, layer in enumerate(layers)]
    arguments = ", ".join(["%rows_like: tensor<?xi8>", *(a for part in parts for a in part[0])])
    results = ", ".join(part[2] for part in parts)
    text = (
        f"func.func @main({arguments}) -> ({results}) {{\n"
        "  %zero = arith.constant 0 : index\n  %rows = tensor.dim %rows_like, %zero : tensor<?xi8>\n"
        + "".join(part[1] for part in parts)
        + f"  return {', '.join(f'%y{i}' for i in range(len(layers)))} : {results}\n}}\n"
    )
    with compile_module(text, opt_level=2) as module:
        for rows in (0, 1, 7, 64, 200):
            inputs = []
            for layer in layers:
                outputs, depth = layer.trits.shape
                x = some_numbers(
                    rng, (rows if layer.static_rows is None else layer.static_rows, depth), dtype
                )
                scale = some_numbers(rng, (layer.scales,), layer.real)
                bias = None if layer.bias is None else some_numbers(rng, (outputs,), layer.bias)
                inputs.append((x, scale, bias))
            flat = [tensor for triple in inputs for tensor in triple if tensor is not None]
            got = module(torch.zeros(rows, dtype=torch.int8), *flat)
            for layer, triple, y in zip(layers, inputs, got, strict=True):
                want = expected(layer, *triple)
                assert reference.same_bits(y, want), (layer, triple, y, want)
