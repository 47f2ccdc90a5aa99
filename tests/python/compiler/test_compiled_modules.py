"""Compiled modules of standard dialects: arguments, results, memory, errors, threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import pytfmbs
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytfmbs.compiler import CompilationError, CompiledModule
from pytfmbs.compiler import compile_module as compile_anew

pytestmark = pytest.mark.usefixtures("mlir_tools")


@pytest.fixture(scope="module")
def compiled() -> Callable[..., CompiledModule]:
    """compile_module that compiles a text once."""
    known: dict[tuple[object, ...], CompiledModule] = {}

    def compile_once(text: str, **options: object) -> CompiledModule:
        key = (text, *sorted(options.items()))
        if key not in known:
            known[key] = compile_anew(text, **options)  # type: ignore[arg-type]
        return known[key]

    return compile_once


Compile = Callable[..., CompiledModule]


def elementwise(element: str, operation: str, shape: str = "?x3") -> str:
    """z = x <operation> y, element by element."""
    kind = f"tensor<{shape}x{element}>"
    return f"""func.func @main(%x: {kind}, %y: {kind}) -> {kind} {{
  %z = arith.{operation} %x, %y : {kind}
  return %z : {kind}
}}
"""


def test_a_result_of_every_element_type(compiled: Compile) -> None:
    for element, dtype in {
        "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16,
        "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
        "index": torch.int64, "i1": torch.bool,
    }.items():  # fmt: skip
        operation = "addf" if "f" in element else "ori" if element == "i1" else "addi"
        x = torch.randint(0, 60, (4, 3)).to(dtype)
        y = torch.randint(0, 60, (4, 3)).to(dtype)
        z = compiled(elementwise(element, operation))(x, y)
        assert z.dtype == dtype
        assert torch.equal(z, x | y if element == "i1" else x + y), element


@pytest.mark.parametrize("element", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("operation", ["addf", "subf", "mulf", "divf"])
def test_each_operation_is_rounded_once(compiled: Compile, element: str, operation: str) -> None:
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[element]
    generator = torch.Generator().manual_seed(7)
    bits = torch.iinfo(torch.int32 if element == "f32" else torch.int16)
    integers = torch.int32 if element == "f32" else torch.int16
    x, y = (
        torch.randint(bits.min, bits.max, (20000, 3), generator=generator).to(integers).view(dtype)
        for _ in range(2)
    )
    z = compiled(elementwise(element, operation))(x, y)
    python = {"addf": torch.add, "subf": torch.sub, "mulf": torch.mul, "divf": torch.div}
    # torch rounds an operation on 16-bit floats once as well.
    assert torch.equal(z.nan_to_num(123.0), python[operation](x, y).nan_to_num(123.0))


@pytest.mark.parametrize("source", ["f32", "f64"])
@pytest.mark.parametrize("element", ["f16", "bf16"])
def test_a_conversion_is_rounded_once(compiled: Compile, element: str, source: str) -> None:
    text = f"""func.func @main(%x: tensor<?x{source}>) -> tensor<?x{element}> {{
  %y = arith.truncf %x : tensor<?x{source}> to tensor<?x{element}>
  return %y : tensor<?x{element}>
}}
"""
    random = np.random.default_rng(5)
    dtype = np.dtype(np.float16 if element == "f16" else ml_dtypes.bfloat16)
    bits = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        every = bits.view(dtype).astype(np.float64)
    kept = np.isfinite(every) & (bits != 0x8000)
    every, bits = every[kept], bits[kept]
    order = np.argsort(every)
    every, bits = every[order], bits[order]
    # Each number of the 16-bit type, each midpoint between two, and what lies just beside them.
    middles = (every[1:] + every[:-1]) / 2
    beside = [np.nextafter(middles, side) for side in (-np.inf, np.inf)]
    limit = every[-1] + (every[-1] - middles[-1])  # from here on the nearest is infinity
    x = np.concatenate([every, middles, *beside, random.standard_normal(10000) * 1e-39])
    x = np.concatenate([x, [np.inf, -np.inf, np.nan, 1e300, -1e300, limit, np.nextafter(limit, 0)]])
    with np.errstate(over="ignore", invalid="ignore"):
        x = x.astype(np.float32 if source == "f32" else np.float64)
    y = compiled(text)(x).astype(np.float64)

    # To nearest, ties to the number whose last bit is 0; by search, independent of any conversion.
    exact = x.astype(np.float64)
    place = np.searchsorted(middles, exact)
    tie = (place < middles.size) & (middles[np.minimum(place, middles.size - 1)] == exact)
    place += tie & (bits[place] % 2 == 1)
    expected = np.where(np.abs(exact) >= limit, np.copysign(np.inf, exact), every[place])
    expected[np.isnan(exact)] = np.nan
    assert np.array_equal(y, expected, equal_nan=True)
    assert np.array_equal(np.signbit(y), np.signbit(exact))


def test_a_product_and_a_sum_are_two_roundings(compiled: Compile) -> None:
    text = """func.func @main(%x: tensor<?xf32>, %y: tensor<?xf32>, %z: tensor<?xf32>) -> tensor<?xf32> {
  %p = arith.mulf %x, %y : tensor<?xf32>
  %s = arith.addf %p, %z : tensor<?xf32>
  return %s : tensor<?xf32>
}
"""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.rand(2, 100000, generator=generator)
    z = -(x * y)  # a fused multiply-add leaves the product's rounding error, two roundings leave 0
    assert torch.count_nonzero(compiled(text)(x, y, z)) == 0


MANY = """func.func @main(%x: tensor<?x4xf32>, %k: tensor<i32>) ->
    (tensor<?x4xf32>, tensor<?x4xf32>, tensor<4xi8>, tensor<i32>, tensor<?x4xf32>) {
  %c = arith.constant dense<[1, -2, 3, -4]> : tensor<4xi8>
  %y = arith.negf %x : tensor<?x4xf32>
  return %x, %y, %c, %k, %y : tensor<?x4xf32>, tensor<?x4xf32>, tensor<4xi8>, tensor<i32>, tensor<?x4xf32>
}
"""


def test_results_that_are_arguments_constants_or_given_twice(compiled: Compile) -> None:
    module = compiled(MANY)
    for _ in range(50):
        x, k = torch.randn(3, 4), torch.tensor(9, dtype=torch.int32)
        outputs = module(x, k)
        same, y, constant, k_out, y_again = outputs
        assert torch.equal(same, x)
        assert torch.equal(y, -x)
        assert torch.equal(y_again, -x)
        assert constant.tolist() == [1, -2, 3, -4]
        assert k_out.shape == ()
        assert k_out == 9
        addresses = {tensor.data_ptr() for tensor in (x, k, *outputs)}
        assert len(addresses) == 7
        constant.zero_()  # what the caller gets is the caller's


def test_arrays_in_arrays_out(compiled: Compile) -> None:
    module = compiled(elementwise("f32", "addf"))
    x = np.ones((2, 3), np.float32)
    assert isinstance(module(x, x), np.ndarray)
    assert isinstance(module(torch.from_numpy(x), x), torch.Tensor)
    half = np.ones((2, 3), ml_dtypes.bfloat16)
    result = compiled(elementwise("bf16", "addf"))(half, half)
    assert result.dtype == ml_dtypes.bfloat16
    assert (result == 2).all()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.tuples(st.integers(0, 6), st.integers(0, 5)),
    layout=st.sampled_from(["plain", "transposed", "strided", "offset", "reversed", "unaligned"]),
    seed=st.integers(0, 1 << 30),
    as_torch=st.booleans(),
)
def test_any_layout_and_size(
    compiled: Compile, sizes: tuple[int, int], layout: str, seed: int, as_torch: bool
) -> None:
    rows, columns = sizes
    random = np.random.default_rng(seed)
    module = compiled(elementwise("f32", "subf", "?x?"))

    def array() -> np.ndarray:
        if layout == "transposed":
            return random.random((columns, rows), np.float32).T
        if layout == "strided":
            return random.random((2 * rows, 3 * columns), np.float32)[::2, ::3]
        if layout == "offset":
            return random.random((rows + 1, columns + 1), np.float32)[1:, 1:]
        if layout == "reversed":
            return random.random((rows, columns), np.float32)[::-1]
        if layout == "unaligned":
            raw = np.zeros(rows * columns * 4 + 1, np.uint8)
            view = raw[1:].view(np.float32).reshape(rows, columns)
            view[...] = random.random((rows, columns), np.float32)
            return view
        return random.random((rows, columns), np.float32)

    x, y = array(), array()
    expected = x - y
    before = x.copy()
    if as_torch and layout not in ("reversed", "unaligned"):  # torch has no such tensors
        result = module(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    else:
        result = module(x, y)
    assert result.shape == (rows, columns)
    assert np.array_equal(result, expected)
    assert np.array_equal(x, before)


def test_arguments_are_not_written(compiled: Compile) -> None:
    text = """func.func @main(%x: tensor<?xf32> ATTRIBUTES) -> tensor<?xf32> {
  %c = arith.constant 5.0 : f32
  %y = linalg.fill ins(%c : f32) outs(%x : tensor<?xf32>) -> tensor<?xf32>
  return %y : tensor<?xf32>
}
"""
    for attributes in ("", "{bufferization.writable = false}"):
        module = compiled(text.replace("ATTRIBUTES", attributes))
        assert module.inputs[0].writable == (not attributes)
        for x in (torch.arange(4.0), np.arange(4, dtype=np.float32)):
            assert module(x).tolist() == [5.0] * 4
            assert x.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ([], TypeError, "takes 2 arrays; 0 were given"),
        ([torch.ones(2, 3)] * 3, TypeError, "3 were given"),
        ([torch.ones(2, 3), torch.ones(2, 3).double()], TypeError, "argument 1 .*float64"),
        ([torch.ones(2, 3), np.ones((2, 3))], TypeError, "argument 1 .*float64"),
        ([torch.ones(2, 3), np.ones((2, 3), ">f4")], TypeError, "argument 1 "),
        ([torch.ones(2, 3), [[1.0]]], TypeError, "not list"),
        ([torch.ones(2, 3), None], TypeError, "not NoneType"),
        ([torch.ones(2, 3), torch.ones(2, 3).to_sparse()], TypeError, "dense"),
        ([torch.ones(2, 3), torch.ones(2, 3, device="meta")], TypeError, "CPU"),
        ([torch.ones(2, 3), torch.ones(3)], ValueError, r"tensor<\?x3xf32>; got \[3\]"),
        ([torch.ones(2, 3), torch.ones(2, 4)], ValueError, r"got \[2, 4\]"),
        ([torch.ones(2, 3), torch.ones(2, 3, 1)], ValueError, r"got \[2, 3, 1\]"),
        ([torch.ones(2, 3), torch.ones(7, 3)], ValueError, "is 7, and .* is 2: they must be equal"),
    ],
)
def test_wrong_arguments(
    compiled: Compile, arguments: list[object], error: type[Exception], words: str
) -> None:
    module = compiled(elementwise("f32", "addf"))
    with pytest.raises(error, match=words):
        module(*arguments)
    assert module(torch.ones(1, 3), torch.ones(1, 3)).tolist() == [[2.0, 2.0, 2.0]]


def test_named_dimensions(compiled: Compile) -> None:
    module = compiled("""func.func @main(
    %x: tensor<?x?xf32> {tfmbs.dims = ["batch", "in"]},
    %y: tensor<?x?xf32> {tfmbs.dims = ["in", "out"]}, %z: tensor<?x?xf32> {tfmbs.dims = ["batch", "out"]})
    -> tensor<?x?xf32> {
  %p = linalg.matmul ins(%x, %y : tensor<?x?xf32>, tensor<?x?xf32>) outs(%z : tensor<?x?xf32>) -> tensor<?x?xf32>
  return %p : tensor<?x?xf32>
}
""")
    x, y, z = torch.ones(2, 5), torch.ones(5, 3), torch.zeros(2, 3)
    assert torch.equal(module(x, y, z), x @ y)
    assert not z.any()
    with pytest.raises(ValueError, match="is 4, and argument 0 of main, dimension 1, is 5"):
        module(x, torch.ones(4, 3), z)


def test_gradients_do_not_flow(compiled: Compile) -> None:
    x = torch.ones(2, 3, requires_grad=True)
    assert not compiled(elementwise("f32", "addf"))(x, x).requires_grad


def test_opt_levels_agree(compiled: Compile) -> None:
    text = """func.func @main(%x: tensor<?x64xf32>, %w: tensor<64x9xf32>, %z: tensor<?x9xf32>) -> tensor<?x9xf32> {
  %p = linalg.matmul ins(%x, %w : tensor<?x64xf32>, tensor<64x9xf32>) outs(%z : tensor<?x9xf32>) -> tensor<?x9xf32>
  %e = math.exp %p : tensor<?x9xf32>
  return %e : tensor<?x9xf32>
}
"""
    x, w, z = torch.randn(33, 64), torch.randn(64, 9), torch.randn(33, 9)
    results = [compiled(text, opt_level=level)(x, w, z) for level in range(4)]
    for result in results[1:]:
        assert torch.equal(result, results[0])


def test_which_function(compiled: Compile) -> None:
    two = """func.func @first(%x: tensor<2xf32>) -> tensor<2xf32> { return %x : tensor<2xf32> }
func.func @second(%x: tensor<3xf32>) -> tensor<3xf32> {
  return %x : tensor<3xf32>
}
"""
    with pytest.raises(CompilationError, match=r"needs entry=.*\['first', 'second'\]"):
        compiled(two)
    with pytest.raises(CompilationError, match="no public function 'third'"):
        compiled(two, entry="third")
    assert compiled(two, entry="second").inputs[0].shape == (3,)
    assert compiled(two.replace("first", "main")).entry == "main"
    assert compiled(two.replace("@first", "private @first")).entry == "second"
    with pytest.raises(CompilationError, match=r"needs entry=.*none"):
        compiled("module {\n}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("func.func @main(\n", "mlir-opt failed"),
        ("", "needs entry="),
        ("\0\0\n", "needs entry="),
        (elementwise("f32", "addi"), "mlir-opt failed"),
        ("func.func @main(%x: f32) -> f32 {\n return %x : f32\n}\n", "has a f32 in its signature"),
        ("func.func @main(%x: tensor<*xf32>) {\n return\n}\n", "ranked tensors"),
        ("func.func @main(%x: tensor<2xf8E5M2>) {\n return\n}\n", "f8E5M2"),
        (
            "func.func private @g(tensor<2xf32>)\n"
            "func.func @main(%x: tensor<2xf32>) {\n"
            " call @g(%x) : (tensor<2xf32>) -> ()\n return\n}\n",
            "linker failed.*",
        ),
        ('"x.y"() : () -> ()\n', "mlir-opt failed"),
    ],
)
def test_modules_that_do_not_compile(text: str, words: str) -> None:
    with pytest.raises(CompilationError, match=words):
        compile_anew(text)


def test_wrong_options(tmp_path: Path) -> None:
    good = elementwise("f32", "addf")
    with pytest.raises(ValueError, match="target is 'cuda'"):
        compile_anew(good, target="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="opt_level is 4"):
        compile_anew(good, opt_level=4)
    with pytest.raises(ValueError, match="fabric= is for target='runtime'"):
        compile_anew(good, fabric=pytfmbs.Fabric())
    with pytest.raises(TypeError, match="not int"):
        compile_anew(good, target="runtime", fabric=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        compile_anew(7)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no MLIR module"):
        compile_anew(tmp_path / "missing.mlir")
    with pytest.raises(FileNotFoundError, match="no MLIR module"):
        compile_anew("missing.mlir")


def test_files_are_kept_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "it is mine.mlir"
    source.write_text(elementwise("f32", "addf"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    x = torch.ones(1, 3)
    for module in (source, str(source), source.read_text()):
        with compile_anew(module) as function:
            assert list(scratch.iterdir()) == []
            assert function(x, x).tolist() == [[2.0] * 3]
    with pytest.raises(CompilationError):
        compile_anew("nonsense\n")
    assert list(scratch.iterdir()) == []
    compile_anew(source, keep=tmp_path / "kept" / "here").close()
    kept = {path.name for path in (tmp_path / "kept" / "here").iterdir()}
    assert {"lowered.mlir", "module.ll", "module.o"} <= kept


def mapped() -> int:
    """How many compiled modules this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split()[-2] for line in lines if "/tfmbs-" in line})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system has no /proc")
def test_a_module_is_unloaded() -> None:
    before = mapped()
    module = compile_anew(elementwise("f32", "addf"))
    assert mapped() == before + 1
    del module
    assert mapped() == before
    with compile_anew(elementwise("f32", "addf")) as module:
        assert not module.closed
    assert module.closed
    assert "closed" in repr(module)
    assert mapped() == before
    module.close()
    with pytest.raises(pytfmbs.ClosedError):
        module(torch.ones(1, 3), torch.ones(1, 3))


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
def test_no_call_leaks(compiled: Compile) -> None:
    layers = "".join(
        f"""  %n{i + 1} = arith.negf %n{i} : tensor<?x1024xf32>
"""
        for i in range(6)
    )
    module = compiled(
        "func.func @main(%n0: tensor<?x1024xf32>) -> (tensor<?x1024xf32>, tensor<?x1024xf32>) {\n"
        + layers
        + "  return %n6, %n0 : tensor<?x1024xf32>, tensor<?x1024xf32>\n}\n"
    )
    x = torch.randn(256, 1024)  # 1 MiB a buffer
    for _ in range(5):
        module(x)
    before = resident_pages()
    for _ in range(100):
        module(x)
    leaked = (resident_pages() - before) * os.sysconf("SC_PAGE_SIZE")
    assert leaked < 20 << 20  # one buffer a call would be 100 MiB


def test_threads(compiled: Compile) -> None:
    module = compile_anew(elementwise("f32", "mulf"))
    failures: list[object] = []
    products: list[int] = []
    busy = threading.Semaphore(0)

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(200):
            x, y = torch.randn(2, 50, 3, generator=generator)
            try:
                if not torch.equal(module(x, y), x * y):
                    failures.append(seed)
            except pytfmbs.ClosedError:
                return
            except Exception as error:
                failures.append(error)
                return
            finally:
                busy.release()  # whatever came of it, so that nobody waits for ever
            products.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        assert busy.acquire(timeout=60)
    module.close()  # waits for the calls that run
    for thread in threads:
        thread.join()
    assert not failures
    assert len(products) >= 30 - len(threads)
