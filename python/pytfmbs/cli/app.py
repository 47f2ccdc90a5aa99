"""The commands of ``pytfmbs``."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import _fabric
from ..checkpoints.converting import convert_checkpoint
from ..checkpoints.saving import FORMATS
from ..conversion.summary import summary as summary_of
from . import inspection, models, tables
from .output import console, one_line_errors, print_json

Format = Enum("Format", {name: name for name in FORMATS}, type=str)  # type: ignore[misc]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
I2sBlock = Annotated[
    int | None,
    typer.Option(
        metavar="128|64",
        help="Weights per block of a GGUF's I2_S tensors, where the file does not tell: 128 where it "
        "was made for x86, 64 for ARM.",
    ),
]
_EXIT_CODES = "Exit codes: 0 done, 1 refused or damaged, 2 wrong usage."

app = typer.Typer(
    name="pytfmbs",
    help="Ternary model files: look into them, convert them, see what is ternary.\n\n"
    + _EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(_fabric.version())
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(epilog=_EXIT_CODES)
@one_line_errors
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            exists=True,
            help="A GGUF or safetensors file, or a folder with config.json.",
        ),
    ],
    every: Annotated[
        bool, typer.Option("--all", help="Give each tensor a row; blocks share rows otherwise.")
    ] = False,
    i2s_block: I2sBlock = None,
    as_json: Json = False,
) -> None:
    """Lists the tensors of a checkpoint: which are ternary, with what scales and bits per weight, what
    would be refused and why, and to which formats it converts.

    Every ternary layer is decoded, so damage shows.
    """
    found = inspection.inspect(path, i2s_block)
    if as_json:
        print_json(found)
    else:
        tables.show(found, console(), every)
    if found["errors"]:
        raise typer.Exit(1)


@app.command(epilog=_EXIT_CODES + " The target is written whole or not at all.")
@one_line_errors
def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", exists=True, help="A ternary checkpoint: a file or a folder."),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A folder; for GGUF a file.")],
    to: Annotated[Format, typer.Option("--to", help="The format to write.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT: a file, or a folder with config.json.")
    ] = False,
    round_scales: Annotated[
        bool,
        typer.Option(
            "--round-scales",
            help="Round scales and biases that the format does not hold exactly. They are refused "
            "otherwise.",
        ),
    ] = False,
    vocabulary: Annotated[
        bool,
        typer.Option(help="Write the tokenizer.json of IN into a GGUF."),
    ] = True,
    pre_tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How a GGUF's tokenizer splits text, by llama.cpp's name (llama-bpe, falcon3, …). "
            "Needed where tokenizer.json does not tell.",
        ),
    ] = None,
    i2s_block: I2sBlock = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Json = False,
) -> None:
    """Writes a ternary checkpoint in another format, a layer at a time.

    [bold]tfmbs[/] holds every ternary layer. [bold]bitnet[/] is loaded by transformers.
    [bold]gguf-tq2_0[/] and [bold]gguf-tq1_0[/] are for llama.cpp: Llama models, or any GGUF with
    ternary blocks.
    """
    with Progress(
        TextColumn("{task.description:38.38}"), BarColumn(bar_width=16), MofNCompleteColumn(),
        TimeElapsedColumn(), console=console(stderr=True), transient=True,
        disable=quiet or as_json or not sys.stderr.isatty(),
    ) as progress:  # fmt: skip
        task = progress.add_task("reading", total=None)

        def show(name: str, done: int, total: int) -> None:
            progress.update(task, description=name[-38:], completed=done, total=total)

        convert_checkpoint(
            source, target, format=to.value, overwrite=force, round_scales=round_scales,
            vocabulary=vocabulary, pre_tokenizer=pre_tokenizer, i2s_block=i2s_block, progress=show,
        )  # fmt: skip
    files = [target] if target.is_file() else sorted(target.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    if as_json:
        print_json(
            {"source": str(source), "target": str(target), "format": to.value, "bytes": size}
        )
    elif not quiet:
        print(f"{target}: {to.value}, {size / 1e6:,.1f} MB")


@app.command(epilog=_EXIT_CODES)
@one_line_errors
def summary(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", exists=True, help="A ternary checkpoint of a transformers model."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Loads a checkpoint into its transformers model and lists the modules: ternary or why not, bits
    per weight, bytes, share of the parameters."""
    found = summary_of(models.model_of(model))
    if as_json:
        print_json(found.to_dict())
    else:
        print(found)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
@one_line_errors
def demo(context: typer.Context) -> None:
    """Trains, runs and profiles a small ternary network on real digits. --help lists its options."""
    from ..demo.__main__ import main

    raise typer.Exit(main(context.args, prog="pytfmbs demo"))


def run() -> int:
    """Runs the command of sys.argv; the exit code."""
    try:
        app(prog_name="pytfmbs")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
