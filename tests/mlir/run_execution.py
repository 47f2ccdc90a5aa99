#!/usr/bin/env python3
"""Runs compiled modules and compares them with PyTorch.

For each network of execution_cases.py, both targets: the outputs, the int32 sums of every layer
(linalg), and every counter of profile_detailed() (runtime), against TFMBSLinear on an equal fabric
with the same calls; and telemetry_hint against what the IR says of each layer.

Outputs are equal bit for bit. Where softmax or tanh follow, they are equal to the rounding of libm:
an exp or tanh of two libraries differs by up to 2 units in the last place, a softmax of n terms adds
n + 2 roundings in either, so |difference| <= 2 (n + 4) 2^-23 of the value.

Exit status: 0 fine, 1 a network differs, 2 a tool is missing.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytfmbs
import torch
from execution_cases import CASES, Built, Case, mlp, tfmbs_layers
from pytfmbs import TFMBSLinear
from pytfmbs.compiler import (
    Toolchain,
    ToolNotFoundError,
    compile_module,
    pipelines,
    read_telemetry,
    to_mlir,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

TARGETS = ("linalg", "runtime")


@dataclass
class Outcome:
    """One network on one target."""

    layers: int = 0
    samples: int = 0
    difference: float = 0.0
    integers: str = "–"  # wrong ones of how many
    counters: str = "–"
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def calls(inputs: Tensor) -> list[Tensor]:
    """What both sides are called with: a batch, its first sample, nothing, and the batch again."""
    return [inputs, inputs[:1], inputs[:0], inputs]


def check(case: Case, target: str, tools: Toolchain) -> Outcome:
    torch.manual_seed(12)
    with pytfmbs.Fabric(case.config) as fabric, pytfmbs.Fabric(case.config) as other:
        built = case.build(fabric)
        module = to_mlir(built.source, config=case.config, **built.options)
        outcome = Outcome(len(tfmbs_layers(built.reference)), len(built.inputs))
        started = time.perf_counter()
        options: dict[str, Any] = {"fabric": other} if target == "runtime" else {}
        with compile_module(
            module, target=target, place=case.place, toolchain=tools, **options
        ) as compiled:
            outcome.seconds = time.perf_counter() - started
            compare_hints(module, built.reference, outcome, tools)
            compare_outputs(compiled, built, outcome)
            if target == "runtime":  # while the module has its layers on the device
                compare_counters(built.reference, other, outcome)
        if case.place:
            compare_places(module, built.reference, case, outcome, tools)
        if target == "linalg" and not outcome.faults:
            compare_integers(module.text, built, outcome, tools)
    return outcome


def compare_outputs(compiled: Any, built: Built, outcome: Outcome) -> None:
    for inputs in calls(built.inputs):
        with torch.no_grad():
            expected = built.reference(inputs)
        result = compiled(inputs)
        if result.shape != expected.shape or result.dtype != expected.dtype:
            outcome.faults.append(
                f"gives {result.dtype} {list(result.shape)}, "
                f"not {expected.dtype} {list(expected.shape)}"
            )
            return
        if not expected.numel():
            continue
        difference = (result.double() - expected.double()).abs()
        outcome.difference = max(outcome.difference, float(difference.max()))
        if built.exact:
            wrong = bits(result) != bits(expected)
        else:
            allowed = 2 * (expected.shape[-1] + 4) * 2.0**-23 * expected.double().abs()
            wrong = ~(difference <= allowed)
        if bool(wrong.any()):
            outcome.faults.append(
                f"{int(wrong.sum())} outputs differ, by up to {float(difference.max())}"
            )
            return


def bits(values: Tensor) -> Tensor:
    """Floats as integers: zeros of two signs differ, and equal NaNs do not."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return values.contiguous().view(integers[values.element_size()])


# --- the sums inside ------------------------------------------------------------------------------


def compare_integers(text: str, built: Built, outcome: Outcome, tools: Toolchain) -> None:
    """Every layer's sums, from the same module made to return them too."""
    wanted = expected_sums(built.reference, built.inputs)
    with compile_module(with_sums(text), toolchain=tools) as compiled:
        results = compiled(built.inputs)[-len(wanted) :]
    wrong = total = 0
    for sums, expected in zip(results, wanted, strict=True):
        if sums.dtype != torch.int32 or tuple(sums.shape) != expected.shape:
            outcome.faults.append(f"sums are {sums.dtype} {list(sums.shape)}")
            return
        wrong += int(np.count_nonzero(sums.numpy() != expected))
        total += expected.size
    outcome.integers = f"{wrong} of {total}"
    if wrong:
        outcome.faults.append(f"{wrong} of {total} sums differ")


def with_sums(text: str) -> str:
    """The module with the results of its tfmbs.gemv appended to those of its function."""
    sums = re.findall(r"(%\w+) = tfmbs\.gemv .* -> (tensor<\S+>)\n", text)
    names, types = zip(*sums, strict=True)
    text, headers = re.subn(
        r"( func\.func .*\) -> )\(?(tensor<[^()\n]*>)\)?( attributes .*)? \{\n",
        lambda match: f"{match[1]}({', '.join([match[2], *types])}){match[3] or ''} {{\n",
        text,
    )
    text, returns = re.subn(
        r"( return )(.*) : (.*)\n",
        lambda match: (
            f"{match[1]}{', '.join([match[2], *names])} : {', '.join([match[3], *types])}\n"
        ),
        text,
    )
    assert headers == returns == 1, text[:2000]
    return text


def expected_sums(reference: nn.Module, inputs: Tensor) -> list[np.ndarray]:
    """The integers of every layer, in NumPy, from what goes into it in PyTorch."""
    sums: list[np.ndarray] = []

    def note(layer: nn.Module, arguments: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(layer, TFMBSLinear)
        rows = arguments[0].detach().reshape(-1, layer.in_features)
        x = rows.double().numpy() if rows.dtype == torch.float64 else rows.float().numpy()
        if layer.activation == "ternary":
            quantized = np.sign(x)
        else:
            one = x.dtype.type
            a = np.maximum(np.abs(x).max(axis=1, keepdims=True), one(1e-5))
            quantized = np.clip(np.rint(x * (one(127) / a)), -127, 127)
        trits = layer.quantized_weight()[0].numpy().astype(np.int64)
        sums.append(quantized.astype(np.int64) @ trits.T)

    hooks = [layer.register_forward_hook(note) for layer in tfmbs_layers(reference)]
    with torch.no_grad():
        reference(inputs)
    for hook in hooks:
        hook.remove()
    return sums


# --- telemetry ------------------------------------------------------------------------------------


def compare_hints(module: Any, reference: nn.Module, outcome: Outcome, tools: Toolchain) -> None:
    """The IR's telemetry against telemetry_hint before the first forward.

    References of other people's models have no names of their own: they get the IR's.
    """
    entries = read_telemetry(module, tools)
    layers = tfmbs_layers(reference)
    if len(entries) != len(layers):
        outcome.faults.append(f"the IR has {len(entries)} layers, PyTorch {len(layers)}")
        return
    for entry, layer in zip(entries, layers, strict=True):
        if layer.name.startswith("linear"):
            layer.name = entry["layer"]
        hint = layer.telemetry_hint
        del hint["resident"]
        if entry != hint:
            outcome.faults.append(f"the IR says {entry}, telemetry_hint {hint}")


def compare_places(
    module: Any, reference: nn.Module, case: Case, outcome: Outcome, tools: Toolchain
) -> None:
    """Addresses that tfmbs-place chose, against where PyTorch's device put the layers."""
    config = case.config
    passes = pipelines.module_pipeline(
        pipelines.place(config.tiles, config.lanes, config.bank_depth)
    )
    placed = tools.run(
        "mlir-opt", *tools.plugin_flags(), f"--pass-pipeline={passes}", "-",
        stdin=module.text.encode(),
    )  # fmt: skip
    for entry, layer in zip(read_telemetry(placed, tools), tfmbs_layers(reference), strict=True):
        hint = layer.telemetry_hint
        del hint["resident"]
        if entry != hint or entry["weight_addr"] is None:
            outcome.faults.append(f"the placed IR says {entry}, telemetry_hint {hint}")


def compare_counters(reference: nn.Module, device: pytfmbs.Fabric, outcome: Outcome) -> None:
    """Everything that the two devices counted."""
    layers = tfmbs_layers(reference)
    expected = layers[0].fabric.profile_detailed()
    counted = device.profile_detailed()
    different = list(differences(counted, expected, ""))
    outcome.counters = "no" if different else "equal"
    outcome.faults += different[:5]
    for layer in layers:
        told = counted["layers"].get(layer.name, {})
        for key in ("sparsity", "tile_mask", "weight_addr", "resident"):
            value = layer.telemetry_hint[key]
            if told.get(key) != value:
                outcome.faults.append(
                    f"{layer.name}: {key} is {told.get(key)}, the hint says {value}"
                )


def differences(counted: Any, expected: Any, where: str) -> Any:
    if isinstance(expected, dict) and isinstance(counted, dict):
        for key in expected.keys() | counted.keys():
            if key not in expected or key not in counted:
                yield f"{where}.{key} is only on one side"
            else:
                yield from differences(counted[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(counted, list):
        for index, (one, two) in enumerate(zip(counted, expected, strict=True)):
            yield from differences(one, two, f"{where}[{index}]")
    elif counted != expected:
        yield f"counter {where.lstrip('.')} is {counted}, PyTorch's {expected}"


# --- mlir-runner ----------------------------------------------------------------------------------

RUNNER = "7-6-3, mlir-runner"


def check_runner(tools: Toolchain) -> Outcome:
    """A small network as mlir-runner executes it, an output a run: it prints one number, with six
    decimals of its mantissa."""
    torch.manual_seed(12)
    model = mlp([7, 6, 3], pytfmbs.Fabric(), mixed=True)
    inputs = torch.randn(1, 7)
    with torch.no_grad():
        expected = model(inputs)[0]
    text = str(to_mlir(model, inputs))
    passes = pipelines.module_pipeline(*pipelines.to_linalg())
    outcome = Outcome(2, 1)
    for output in range(3):
        lowered = tools.run(
            "mlir-opt", *tools.plugin_flags(), f"--pass-pipeline={passes}", "-",
            stdin=with_entry(text, inputs, output).encode(),
        )  # fmt: skip
        printed = tools.run(
            "mlir-runner", "-e", "entry", "--entry-point-result=f32", stdin=lowered.encode()
        )
        difference = abs(float(printed) - float(expected[output]))
        outcome.difference = max(outcome.difference, difference)
        if not difference <= 5e-7 * abs(float(expected[output])):
            outcome.faults.append(f"output {output} is {printed}, PyTorch's {expected[output]}")
    return outcome


def with_entry(text: str, inputs: Tensor, output: int) -> str:
    """The module with a function of no arguments that gives one number of what it computes."""
    row = ", ".join(f"{value:.9e}" for value in inputs[0].tolist())
    entry = f"""
  func.func @entry() -> f32 {{
    %input = arith.constant dense<[[{row}]]> : tensor<1x7xf32>
    %samples = tensor.cast %input : tensor<1x7xf32> to tensor<?x7xf32>
    %result = func.call @main(%samples) : (tensor<?x7xf32>) -> tensor<?x3xf32>
    %sample = arith.constant 0 : index
    %output = arith.constant {output} : index
    %value = tensor.extract %result[%sample, %output] : tensor<?x3xf32>
    return %value : f32
  }}
"""
    head, brace, resources = text.partition("\n}\n")
    return head + entry + brace + resources


# --- the command ----------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="leave out what is like another")
    parser.add_argument("--only", metavar="PART", help="networks with this in their name")
    parser.add_argument("--target", choices=TARGETS, help="default: both")
    parser.add_argument("--mlir-opt")
    parser.add_argument("--plugin")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # of exporters and of training that was cut short on purpose
    tools = Toolchain(mlir_opt=arguments.mlir_opt, plugin=arguments.plugin)
    try:
        for tool in ("mlir-opt", "plugin", "mlir-translate", "opt", "llc", "linker"):
            tools.path(tool)
    except ToolNotFoundError as error:
        print(f"run_execution: {error}", file=sys.stderr)
        return 2
    cases = [
        case
        for case in CASES
        if (case.quick or not arguments.quick) and (arguments.only or "") in case.name
    ]
    runner = (arguments.only or "") in RUNNER and arguments.target is None
    if not cases and not runner:
        parser.error(f"no network has {arguments.only!r} in its name")

    table = Table(title="Compiled modules against PyTorch")
    for heading in ("module", "layers", "target", "greatest difference", "wrong integers",
                    "counters", "compiled in"):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("module", "target") else "right")
    failed: list[str] = []
    runs: list[tuple[str, str, Callable[[], Outcome]]] = [
        (case.name, target, partial(check, case, target, tools))
        for case in cases
        for target in ([arguments.target] if arguments.target else TARGETS)
    ]
    if runner:
        runs.append((RUNNER, "linalg", partial(check_runner, tools)))
    for name, target, run in runs:
        try:
            outcome = run()
        except Exception as error:  # the others are still worth a look
            outcome = Outcome(faults=[f"{type(error).__name__}: {error}"])
        failed += [f"{name}, {target}: {fault}" for fault in outcome.faults]
        table.add_row(
            ("✗ " if outcome.faults else "") + name, str(outcome.layers), target,
            f"{outcome.difference:.3g}", outcome.integers, outcome.counters,
            f"{outcome.seconds:.2f} s",
        )  # fmt: skip
    Console(width=120).print(table)
    for fault in failed:
        print(f"FAILED {fault}")
    print(f"execution: {len(cases) + runner} networks, {len(failed)} faults")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
