"""Runs tfmbs-fuse on a layer followed by each form of a comparison with zero."""

import itertools
import subprocess
import sys

LAYER = """
func.func @f(%x: tensor<4x3xf32>, %q0: tensor<4x3xi8>, %s0: tensor<4xf32>, %a0: tensor<4x2xi32>,
             %y0: tensor<4x2x{y}>, %r0: tensor<4x2x{r}>) -> tensor<4x2x{r}> {{
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %scale = arith.constant dense<1.0> : tensor<1xf32>
  %zeros = arith.constant dense<0.0> : tensor<4x2xf32>
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  %q, %s = tfmbs.quantize ternary ins(%x : tensor<4x3xf32>)
      outs(%q0, %s0 : tensor<4x3xi8>, tensor<4xf32>) -> tensor<4x3xi8>, tensor<4xf32>
  %a = tfmbs.gemv {{tile_mask = 1 : ui64, telemetry = {{layer = "fc1", sparsity = 0.5}}}}
      ins(%q, %w : tensor<4x3xi8>, tensor<2x3x!tfmbs.trit>)
      outs(%a0 : tensor<4x2xi32>) -> tensor<4x2xi32>
  %y = tfmbs.dequantize ins(%a, %s, %scale : tensor<4x2xi32>, tensor<4xf32>, tensor<1xf32>)
      outs(%y0 : tensor<4x2x{y}>) -> tensor<4x2x{y}>
{relu}
  return %r : tensor<4x2x{r}>
}}
"""
GENERIC = """
  %r = linalg.generic {{indexing_maps = [affine_map<(d0, d1) -> (d0, d1)>,
      affine_map<(d0, d1) -> (d0, d1)>], iterator_types = ["parallel", "parallel"]}}
      ins(%y : tensor<4x2x{y}>) outs(%r0 : tensor<4x2x{r}>) {{
  ^bb0(%e: {y}, %o: {r}):
{body}
    linalg.yield %m : {r}
  }} -> tensor<4x2x{r}>
"""
NAN = float("nan")
COMPARE = {
    "eq": lambda a, b: a == b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "ne": lambda a, b: a not in (b, NAN),
}


def holds(predicate: str, a: float, b: float) -> bool:
    """What arith.cmpf gives."""
    if a != a or b != b:
        return predicate[0] == "u"
    return COMPARE[predicate[1:]](a, b)


def is_relu(predicate: str, swapped: bool, x_first: bool) -> bool:
    for x in (-2.0, 0.0, 3.0, NAN):
        condition = holds(predicate, 0.0, x) if swapped else holds(predicate, x, 0.0)
        result = x if condition == x_first else 0.0
        expected = x if x != x or x > 0 else 0.0
        if not (result == expected or (result != result and expected != expected)):
            return False
    return True


def forms() -> list[tuple[str, bool]]:
    """The function and whether its ReLU joins the layer."""
    found = []

    def add(body: str, fuses: bool, y: str = "f32", r: str = "f32") -> None:
        """A generic of elements y to elements r."""
        generic = GENERIC.format(body=body, y=y, r=r)
        found.append((LAYER.format(relu=generic, y=y, r=r), fuses))

    add("    %m = arith.maximumf %e, %zero : f32", True)
    add("    %m = arith.maximumf %zero, %e : f32", True)
    add("    %m = arith.maximumf %e, %one : f32", False)
    add("    %m = arith.maximumf %o, %zero : f32", False)
    add("    %m = arith.maxnumf %e, %zero : f32", False)
    add("    %m = arith.minimumf %e, %zero : f32", False)
    add("    %u = arith.addf %e, %one : f32\n    %m = arith.maximumf %u, %zero : f32", False)
    for order, relation in itertools.product("ou", ("eq", "gt", "ge", "lt", "le", "ne")):
        for swapped, x_first in itertools.product((False, True), repeat=2):
            sides = "%zero, %e" if swapped else "%e, %zero"
            picked = "%e, %zero" if x_first else "%zero, %e"
            add(
                f"    %c = arith.cmpf {order}{relation}, {sides} : f32\n"
                f"    %m = arith.select %c, {picked} : f32",
                is_relu(order + relation, swapped, x_first),
            )
    up = "    %u = arith.extf %e : f16 to f32\n    {of} = arith.maximumf %u, %zero : f32"
    down = "\n    %m = arith.truncf %v : f32 to f16"
    add(up.format(of="%v") + down, True, "f16", "f16")
    add(up.format(of="%m"), False, "f16", "f32")  # these convert too
    add("    %v = arith.maximumf %e, %zero : f32" + down, False, "f32", "f16")
    whole = "  %r = arith.maximumf %y, %zeros : tensor<4x2xf32>"
    found.append((LAYER.format(relu=whole, y="f32", r="f32"), True))
    pair = (
        "  %c = arith.cmpf olt, %y, %zeros : tensor<4x2xf32>\n"
        "  %r = arith.select %c, %zeros, %y : tensor<4x2xi1>, tensor<4x2xf32>"
    )
    found.append((LAYER.format(relu=pair, y="f32", r="f32"), True))
    return found


def main() -> int:
    cases = forms()
    text = "\n// -----\n".join(function for function, _ in cases)
    result = subprocess.run(
        ["mlir-opt", f"--load-dialect-plugin={sys.argv[1]}", "--split-input-file",
         "--pass-pipeline=builtin.module(tfmbs-fuse)"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        print(result.stderr)
        return 1
    outputs = result.stdout.split("// -----")
    assert len(outputs) == len(cases), len(outputs)
    assert sum(fuses for _, fuses in cases) >= 8
    for (function, fuses), output in zip(cases, outputs, strict=True):
        assert "tfmbs.linear ternary" in output, output
        if ("tfmbs.linear ternary relu" in output) != fuses:
            print(f"expected {'a' if fuses else 'no'} fused ReLU:\n{function}\n{output}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
