"""opcheck, torch.compile, torch.export and the profiler: eager's results, and eager's telemetry."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import Fabric, FabricConfig, TFMBSLinear, TFMBSPackedLinear, ops
from pytfmbs.ops import torch_ops
from torch import Tensor, nn

#: inductor compiles C++; aot_eager stops before it. Both go through the effect tokens.
BACKENDS = ("aot_eager", "inductor")


class Doubling:
    """A user's quantizer made of torch ops, so that it can be traced."""

    name = "doubling"

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        trits = torch.sign(weight) * (weight.abs() > 0.1)
        return trits.to(torch.int8), torch.full((1,), 2.0)


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch._dynamo.reset()


def network(fabric: Fabric | None = None) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        TFMBSLinear(20, 33, name="first", fabric=fabric),
        nn.ReLU(),
        TFMBSLinear(
            33, 17, name="second", fabric=fabric, weight_quantizer="absmean", activation="int8"
        ),
        nn.ReLU(),
        TFMBSLinear(17, 5, bias=False, name="third", fabric=fabric, weight_quantizer=Doubling()),
    )


def counted(fabric: Fabric, work: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What work gives, and the profile of it alone, on a device whose layers have settled in."""
    fabric.reset_counters()
    result = work()
    return result, fabric.profile_detailed()


# --- opcheck --------------------------------------------------------------------------------------


def op_cases() -> list[Any]:
    """Every op, with inputs that take every branch of its fake and its gradient."""
    torch.manual_seed(0)
    layers = {
        (quantizer, activation): TFMBSLinear(
            20, 17, weight_quantizer=quantizer, activation=activation
        )
        for quantizer, activation in (("sign", "ternary"), ("twn", "int8"))
    }
    cases = []
    for (quantizer, activation), layer in layers.items():
        trits, scale = layer.quantized_weight()
        label = f"{quantizer}-{activation}"
        key = (layer.fabric_identity,)
        for shape, grad, training, out in (
            ((3, 20), True, True, None),
            ((2, 2, 20), False, False, None),
            ((20,), True, False, None),
            ((0, 20), False, True, None),
            ((3, 20), True, True, torch.bfloat16),
        ):
            x = torch.randn(*shape, requires_grad=grad)
            bias = layer.bias if out is None else None
            cases += [
                pytest.param(
                    op,
                    (x, layer.weight, bias, *key, quantizer, activation, 0.5, training, out),
                    layer,
                    id=f"{name}-{label}-{'x'.join(map(str, shape))}-{grad}-{training}-{out}",
                )
                for name, op in (("linear", ops.linear), ("linear_relu", ops.linear_relu))
            ]
        x = torch.randn(3, 20, requires_grad=True)
        cases += [
            pytest.param(
                ops.linear_trits,
                (x, layer.weight, trits, scale, layer.bias, *key, activation, None, None),
                layer,
                id=f"linear_trits-{label}",
            ),
            pytest.param(
                ops.prefetch,
                (layer.weight.detach(), *key, quantizer, activation, True),
                layer,
                id=f"prefetch-{label}",
            ),
            pytest.param(
                ops.pack,
                (layer.weight.detach(), *key, quantizer, activation, True),
                layer,
                id=f"pack-{label}",
            ),
            pytest.param(
                ops.pack_trits,
                (layer.weight.detach(), trits, scale, *key, activation),
                layer,
                id=f"pack_trits-{label}",
            ),
            pytest.param(
                ops.prefetch_trits,
                (layer.weight.detach(), trits, scale, *key, activation),
                layer,
                id=f"prefetch_trits-{label}",
            ),
            *packed_cases(layer, trits, scale, activation, label),
            *gradient_cases(layer, trits, scale, quantizer, activation, label),
            pytest.param(
                ops.quantize_weight,
                (layer.weight.detach(), quantizer),
                layer,
                id=f"quantize_weight-{label}",
            ),
            pytest.param(
                ops.quantize_activation,
                (x.detach(), activation),
                layer,
                id=f"quantize_activation-{label}",
            ),
        ]
    return cases


def gradient_cases(
    layer: TFMBSLinear,
    trits: torch.Tensor,
    scale: torch.Tensor,
    quantizer: str,
    activation: str,
    label: str,
) -> list[Any]:
    """The ops of training, with and without a window."""
    x, weight = torch.randn(3, 20), layer.weight.detach()
    cases = []
    for clip in (None, 0.5):
        kept = torch_ops.kept_activation(x, activation, clip, True)
        window = None if clip is None else kept
        grad = torch.randn(3, 17, requires_grad=True)
        tail = (activation, True, torch.float32)
        found: dict[str, tuple[Any, ...]] = {
            "kept_activation": (x, activation, clip, True),
            "unkept": (kept, activation, clip is not None, True, 20, torch.float32),
            "input_gradient": (
                grad, weight, window, layer.fabric_identity, quantizer, *tail,
            ),
            "input_gradient_trits": (grad, trits, scale, window, *tail),
            "weight_gradient": (grad, kept, weight, activation, clip is not None),
            "weight_gradient_everywhere": (
                grad, kept, *weight.shape, weight.dtype, activation, clip is not None,
            ),
        }  # fmt: skip
        cases += [
            pytest.param(getattr(torch_ops, name), arguments, layer, id=f"{name}-{label}-{clip}")
            for name, arguments in found.items()
        ]
    return cases


def packed_cases(
    layer: TFMBSLinear, trits: torch.Tensor, scale: torch.Tensor, activation: str, label: str
) -> list[Any]:
    """The packed layers' ops, of a layer's trits and scale, and of group scales."""
    cases = []
    for packed in (
        TFMBSPackedLinear.from_trits(trits, scale, layer.bias, activation=activation),
        TFMBSPackedLinear.from_trits(
            trits, torch.rand(17, 1), group_size=32, activation=activation
        ),
    ):
        form = (packed._panels, packed._scales)
        size = (packed._layout, 17, 20)
        group = packed.group_size or 0
        x = torch.randn(3, 20, requires_grad=True)
        found: dict[str, tuple[Any, ...]] = {
            "packed_linear": (
                x, *form, packed.bias, packed.fabric_identity, *size, group, activation, 0.5, None,
            ),
            "input_gradient_packed": (
                torch.randn(3, 17, requires_grad=True), *form,
                torch_ops.kept_activation(x.detach(), activation, 0.5, False),
                *size, group, activation, False, torch.float32,
            ),
            "prefetch_packed": (*form, packed.fabric_identity, *size, group, activation),
            "panels_of_trits": (trits, packed._layout, form[0]),
            "panels_of_rows": (packed.packed, 20, packed._layout, form[0]),
            "trits_of_panels": (packed._panels, *size),
            "rows_of_panels": (packed._panels, *size),
            "rows_of_trits": (trits,),
        }  # fmt: skip
        if group:
            found["ordered_scales"] = (packed.scale, 20, group)
            found["scale_rows"] = (packed._scales, 17, 20, group)
        cases += [
            pytest.param(getattr(torch_ops, name), arguments, packed, id=f"{name}-{label}-{group}")
            for name, arguments in found.items()
        ]
    return cases


@pytest.mark.parametrize(("op", "arguments", "layer"), op_cases())
def test_opcheck(op: Any, arguments: tuple[Any, ...], layer: nn.Module) -> None:
    """layer is here to keep the place that the arguments name."""
    outcome = torch.library.opcheck(op, arguments)
    assert set(outcome) == {
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_dynamic",
    }
    assert set(outcome.values()) == {"SUCCESS"}


#: Ops that a test beside their own subject checks.
CHECKED_ELSEWHERE = {
    "ops/test_shard_ops.py": (
        "packed_sums", "scaled_sums", "weight_magnitudes", "weight_rule", "trits_above",
    ),
    "decoding/test_blocks.py": ("decode_block",),
    "decoding/test_head.py": ("int8_rows", "int8_linear"),
}  # fmt: skip


def test_opcheck_covers_every_op() -> None:
    checked = {case.values[0].name() for case in op_cases()}
    for file, names in CHECKED_ELSEWHERE.items():
        text = (Path(__file__).parents[1] / file).read_text()
        assert "torch.library.opcheck(" in text
        assert all(name in text for name in names)
        checked |= {f"tfmbs::{name}" for name in names}
    registered = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("tfmbs::")
    }
    assert registered
    assert {name.split(".")[0] for name in checked} == registered


# --- torch.compile --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_inference_equals_eager_with_its_telemetry(backend: str) -> None:
    fabric = Fabric(FabricConfig(tiles=2))
    model = network(fabric).eval()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for batch in (4, 7):  # the second one makes the batch dynamic
        x = torch.randn(batch, 20)
        with torch.no_grad():
            model(x)  # residency settles, so that the two runs start alike
            compiled(x)
            expected, eager = counted(fabric, lambda x=x: model(x))
            result, telemetry = counted(fabric, lambda x=x: compiled(x))
        assert torch.equal(result, expected)
        assert telemetry == eager
        assert telemetry["layers"]["first"]["residency_hits"] == 1
        assert telemetry["cycles"] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_training_equals_eager_with_its_telemetry(backend: str) -> None:
    x, target = torch.randn(6, 20), torch.randn(6, 5)

    def train(wrap: Callable[[nn.Module], Any]) -> tuple[list[float], list[Tensor], dict[str, Any]]:
        fabric = Fabric(FabricConfig(tiles=2))
        model = network(fabric)
        step = wrap(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(step(x), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, [p.detach() for p in model.parameters()], fabric.profile_detailed()

    losses, parameters, eager = train(lambda model: model)
    compiled = train(lambda model: torch.compile(model, backend=backend, fullgraph=True))
    assert compiled[2] == eager
    torch.testing.assert_close(compiled[0], losses)
    torch.testing.assert_close(compiled[1], parameters)
    assert losses[-1] != losses[0]


class Calls(nn.Module):
    """A result that nobody uses, the same call twice, and a call between them."""

    def __init__(self, fabric: Fabric) -> None:
        super().__init__()
        self.first = TFMBSLinear(16, 16, fabric=fabric, name="first")
        self.second = TFMBSLinear(16, 16, fabric=fabric, name="second")

    def forward(self, x: Tensor) -> Tensor:
        self.second(x)
        once = self.first(x)
        again = self.first(x)
        return once + again


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropped_and_repeated_calls_count_as_in_eager(backend: str) -> None:
    fabric = Fabric(FabricConfig())
    model = Calls(fabric).eval()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    x = torch.randn(3, 16)
    with torch.no_grad():
        model(x)
        compiled(x)
        expected, eager = counted(fabric, lambda: model(x))
        result, telemetry = counted(fabric, lambda: compiled(x))
    assert torch.equal(result, expected)
    assert telemetry == eager
    assert telemetry["layers"]["first"]["residency_hits"] == 2
    assert telemetry["layers"]["second"]["residency_hits"] == 1


def test_a_compiled_model_sees_its_weights_change() -> None:
    layer = TFMBSLinear(8, 4).eval()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 8)
    with torch.no_grad():
        for change in (
            lambda: layer.weight.neg_(),
            lambda: setattr(layer.weight, "data", torch.randn(4, 8)),
            lambda: layer.load_state_dict(nn.Linear(8, 4).state_dict()),
        ):
            before = compiled(x)
            change()
            assert torch.equal(compiled(x), layer(x))
            assert not torch.equal(compiled(x), before)


def test_a_compiled_model_follows_a_renamed_layer() -> None:
    fabric = Fabric(FabricConfig())
    layer = TFMBSLinear(8, 4, fabric=fabric, name="before").eval()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 8)
    with torch.no_grad():
        compiled(x)
        layer.name = "after"
        compiled(x)
    layers = fabric.profile_detailed()["layers"]
    assert list(layers) == ["after"]
    assert layers["after"]["residency_misses"] == 1


def test_compiled_under_autocast() -> None:
    model = network().eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 20)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        result, expected = compiled(x), model(x)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, expected)


def test_compiled_code_refuses_bad_input_as_eager_does() -> None:
    errors = []
    for layer in (nn.Linear(8, 4), TFMBSLinear(8, 4)):
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager")
        with pytest.raises(RuntimeError) as raised:
            compiled(torch.randn(2, 9))
        errors.append(raised.value)
        assert compiled(torch.randn(2, 8)).shape == (2, 4)
    reason = "a and b must have same reduction dim, but got [2, 9] X [8, 4]."
    assert [type(error) for error in errors] == [type(errors[0])] * 2
    assert [reason in str(error) for error in errors] == [True, True]


# --- torch.export ---------------------------------------------------------------------------------

_RUN_EXPORTED = """
import sys, torch, pytfmbs
program = torch.export.load(sys.argv[1])
model = program.module()
for x, expected in torch.load(sys.argv[2]):
    assert torch.equal(model(x), expected), (model(x), expected)
layers = pytfmbs.Fabric().profile_detailed()["layers"]
print({name: counts["residency_hits"] + counts["residency_misses"]
       for name, counts in layers.items()})
"""


def test_export_with_a_dynamic_batch_runs_in_another_process(tmp_path: Path) -> None:
    model = network().eval()
    example = torch.randn(4, 20)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    assert {str(n.target) for n in program.graph.nodes if "tfmbs" in str(n.target)}
    torch.export.save(program, tmp_path / "model.pt2")
    cases = [(x, model(x).detach()) for x in (torch.randn(n, 20) for n in (1, 4, 9))]
    torch.save(cases, tmp_path / "cases.pt")

    for x, expected in cases:
        assert torch.equal(program.module()(x), expected)
    done = subprocess.run(
        [sys.executable, "-c", _RUN_EXPORTED, tmp_path / "model.pt2", tmp_path / "cases.pt"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hints = {layer.name: 3 for layer in model if isinstance(layer, TFMBSLinear)}
    assert done.stdout.strip() == str(hints)


def test_an_exported_program_counts_as_its_model() -> None:
    fabric = Fabric(FabricConfig(tiles=3))
    model = network(fabric).eval()
    x = torch.randn(4, 20)
    program = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        program(x)
        model(x)
        expected, eager = counted(fabric, lambda: model(x))
        result, telemetry = counted(fabric, lambda: program(x))
    assert torch.equal(result, expected)
    assert telemetry == eager


# --- the profiler ---------------------------------------------------------------------------------


def test_the_profiler_shows_the_ops() -> None:
    model = network()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(torch.randn(4, 20))
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["tfmbs::linear"] >= 2
    assert calls["tfmbs::linear_trits"] >= 1


def test_the_fabric_is_what_the_ops_say() -> None:
    """No op argument is a handle: a copy of the identity finds the layer, and its device."""
    fabric = Fabric(FabricConfig(tiles=2))
    layer = TFMBSLinear(6, 3, fabric=fabric, name="found-by-text")
    x = torch.randn(2, 6)
    identity = layer.fabric_identity.clone()
    y = torch.ops.tfmbs.linear(
        x, layer.weight, layer.bias, identity, "sign", "ternary", None, False
    )
    assert torch.equal(y, layer(x))
    assert fabric.profile()["residency_hits"] == 1
    assert layer.name not in pytfmbs.Fabric().profile_detailed()["layers"]


# --- equal blocks share a graph -------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer = kind(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x))


@pytest.mark.parametrize("regional", [True, False])
@pytest.mark.parametrize("kind", [TFMBSLinear, TFMBSPackedLinear])
def test_twelve_equal_blocks_compile_to_one_graph(kind: type[nn.Module], regional: bool) -> None:
    """Each block by itself, or the model as a whole; and each keeps its own name on the device."""
    torch._dynamo.reset()
    blocks = nn.Sequential(*[Block(kind) for _ in range(12)]).eval()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        graphs.append(graph)
        return graph.forward

    x = torch.randn(3, 16)
    with torch.no_grad():
        expected = blocks(x)
        if regional:
            for block in blocks:
                block.compile(fullgraph=True, backend=backend)
            compiled: Callable[[Tensor], Tensor] = blocks
        else:
            compiled = torch.compile(blocks, fullgraph=True, backend=backend)
        Fabric().reset_counters()
        assert torch.equal(compiled(x), expected)
        counted_layers = Fabric().profile_detailed()["layers"]
    assert len(graphs) == 1
    names = [block.layer.name for block in blocks]
    assert len(set(names)) == 12
    assert all(
        counted_layers[name]["active_ops"] + counted_layers[name]["cycles"] > 0 for name in names
    )
