"""Models that load_into loads from BitNet checkpoints, against transformers' own, in eager fp32."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pytfmbs import TFMBSPackedLinear
from pytfmbs.checkpoints import load_into
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModelForCausalLM, BitNetQuantConfig  # noqa: E402
from transformers.integrations.bitnet import pack_weights  # noqa: E402

Model = Any
UNIT = 2.0**-24  # float32's rounding


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):  # transformers compiles its layers
        yield


def small(kind: str) -> Model:
    """A random model whose inputs are no multiples of 8, 128 or 256."""
    torch.manual_seed(0)
    options = {"attention_bias": True} if kind == "Llama" else {}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=67, hidden_size=36, intermediate_size=92, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=None, **options,
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def write(folder: Path, model: Model, dtype: torch.dtype, **options: Any) -> None:
    """A checkpoint with random trits, scales, biases and norms; float tensors of a dtype."""
    divides = options["linear_class"] == "bitlinear"
    tensors = {name: value.to(dtype, copy=True) for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or name == "lm_head":
            continue
        if options["use_rms_norm"]:
            norm = torch.rand(module.in_features) + 0.5
            tensors[f"{name}.rms_norm.weight"] = norm.to(dtype)
        if module.bias is not None:
            tensors[f"{name}.bias"] = torch.randn(module.out_features).to(dtype)
        if options["quantization_mode"] == "offline":
            trits = torch.randint(-1, 2, module.weight.shape, dtype=torch.int8)
            tensors[f"{name}.weight"] = pack_weights(trits)
            scale = torch.rand(1) * 0.1 + 0.02
            tensors[f"{name}.weight_scale"] = (1 / scale if divides else scale).to(dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(model.config.to_json_string(use_diff=False))
    quantization = BitNetQuantConfig(modules_to_not_convert=["lm_head"], **options).to_dict()
    quantization["quant_method"] = "bitnet"
    config |= {"architectures": [type(model).__name__], "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config, default=str))


def rounding(layer: TFMBSPackedLinear, x: Tensor) -> Tensor:
    """The most that two fp32 forms of a layer's output differ, for the same int8 activations q.

    y = s_x s_w Σ q_k t_k + b. With u = 2⁻²⁴ and A = s_x s_w Σ |q_k t_k| + |b|: a sum of K products in
    fp32, in any order, is off by at most K u A (to the first order in u). Besides, each form rounds a
    fixed number of times: s_x and its product with q (3), s_w (the mean of absolute values, in
    pairwise sums of at most 2¹³ terms: 13 + 3), their products with the sum (2), the bias (2), and
    the norm before (5). Together at most 32 for each form, so the difference is at most (K + 64) u A.
    """
    norm = getattr(layer, "rms_norm", None)
    x = x if norm is None else norm(x)
    step = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5).double() / 127
    trits, scale = layer.quantized_weight()
    size = (x / step).round().abs() @ trits.double().abs().T * step * scale.double()
    if layer.bias is not None:
        size = size + layer.bias.abs()
    return (layer.in_features + 64) * UNIT * size


@contextmanager
def hooked(model: Model, names: dict[str, Any], call: Callable[..., Any]) -> Iterator[None]:
    """call(name, input, output) after each of these modules; it may return another output."""

    def hook(name: str) -> Callable[..., Any]:
        return lambda module, inputs, output: call(name, inputs[0], output)

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    yield
    for handle in handles:
        handle.remove()


def tokens_of(model: Model, prompt: Tensor) -> list[int]:
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=32, do_sample=False
    )
    return list(made[0].tolist())


@torch.no_grad()
def check(mine: Model, theirs: Model) -> None:
    """Layers, logits and tokens.

    Layers, on the same inputs: within ``rounding``. Logits: each layer's rounding goes through the
    rest of the model, and may carry an activation over the edge between two int8 steps, which no
    bound of first order covers. So the tolerance is the model's own: its logits' largest change over
    eight forward passes with every layer's output moved by its bound, up or down at random, times 2
    for the draws that were not made. True roundings are below the bound by a factor of about √K.
    """
    layers = {n: m for n, m in mine.named_modules() if isinstance(m, TFMBSPackedLinear)}
    assert len(layers) == 14
    prompt = torch.arange(1, 9).unsqueeze(0)
    calls = {}
    with hooked(theirs, layers, lambda name, x, y: calls.update({name: (x.clone(), y.clone())})):
        expected = theirs(prompt).logits
    for name, (x, y) in calls.items():
        difference = (layers[name](x).double() - y.double()).abs()
        assert bool((difference <= rounding(layers[name], x)).all()), name

    draw = torch.Generator().manual_seed(1)

    def moved(name: str, x: Tensor, y: Tensor) -> Tensor:
        signs = torch.randint(0, 2, y.shape, generator=draw) * 2 - 1
        return (y.double() + signs * rounding(layers[name], x)).to(y.dtype)

    with hooked(theirs, layers, moved):
        tolerance = 2 * max(float((theirs(prompt).logits - expected).abs().max()) for _ in range(8))
    assert tolerance < 0.05 * float(expected.abs().max())  # it tells wrong numbers from right ones
    assert float((mine(prompt).logits - expected).abs().max()) <= tolerance
    assert tokens_of(mine, prompt) == tokens_of(theirs, prompt)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize(
    ("linear_class", "mode"),
    [("bitlinear", "offline"), ("autobitlinear", "offline"), ("autobitlinear", "online")],
)
@pytest.mark.parametrize(
    ("kind", "dtype"), [("Llama", torch.float16), ("BitNet", torch.bfloat16)], ids=str
)
def test_loaded_models_have_transformers_numbers(
    tmp_path: Path, kind: str, dtype: torch.dtype, linear_class: str, mode: str, norm: bool
) -> None:
    write(
        tmp_path, small(kind), dtype, linear_class=linear_class, quantization_mode=mode,
        use_rms_norm=norm, rms_norm_eps=1e-3,
    )  # fmt: skip
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    # from_pretrained leaves "offline" tensors in the file's dtype, and .float() is refused.
    nn.Module.float(theirs)
    mine = small(kind)
    mine.set_attn_implementation("eager")
    mine = load_into(mine, tmp_path)
    assert type(mine.lm_head) is nn.Linear
    check(mine, theirs)
