"""The tables of docs/kernels.md that follow from the list of ISA variants.

python -m benchmarks.suite.kernel_page    writes them into the page
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .variants import KERNELS, VARIANTS, Variant

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kernels.md"


def operations() -> set[str]:
    return {path.parent.name for path in KERNELS.glob("src/*/*.cpp")}


def own_operations(variant: Variant) -> str:
    """In words, the shorter way."""
    rest = sorted(operations() - set(variant.own))
    if not rest:
        return "all"
    few = sorted((variant.own, rest), key=len)[0]
    names = ", ".join(f"`{name}`" for name in few)
    return names if few == variant.own else f"all but {names}"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def names_of(layouts: tuple[str, str]) -> str:
    """quads / fives of trit_quads and trit_fives."""
    return " / ".join(layout.partition("_")[2] for layout in layouts)


def tables() -> dict[str, str]:
    return {
        "variants": table(
            [
                "variant",
                "needs, with what its parent needs",
                "parent",
                "operations of its own",
                "tested on",
            ],
            (
                [
                    f"`{v.name}`",
                    v.needs,
                    f"`{v.parent.name}`" if v.parent else "–",
                    own_operations(v),
                    v.tested,
                ]
                for v in VARIANTS.values()
            ),
        ),
        "layouts": table(
            [
                "variant",
                "ternary × ternary, cached / streamed",
                "int8 × ternary, cached / streamed",
            ],
            (
                [f"`{v.name}`", names_of(v.trit_layouts), names_of(v.int8_layouts)]
                for v in VARIANTS.values()
            ),
        ),
    }


def made(page: str) -> str:
    """The page with its tables made anew, each between two marks of its name."""
    for name, text in tables().items():
        begin, end = f"<!-- table of {name}: begin -->\n", f"<!-- table of {name}: end -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no {begin.strip()} or no {end}")
        page = before + begin + text + "\n" + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {PAGE}")
