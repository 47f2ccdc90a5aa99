"""What goes to the terminal: tables and progress for people, JSON for programs, one line an error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.text import Text

from ..errors import CheckpointError, FabricError

P = ParamSpec("P")
_WIDTH = 80  # of what is no terminal
#: The library's words for options, and the command's.
_AS_OPTIONS = {
    "linear_class='autobitlinear' or round_scales=True": "--round-scales",
    "round_scales=True": "--round-scales",
    "pre_tokenizer,": "--pre-tokenizer,",
    "Pass overwrite": "Pass --force",
    "pass overwrite": "pass --force",
    "without a vocabulary": "with --no-vocabulary",
    "Save it as 'tfmbs' or 'bitnet'": "Convert to tfmbs or bitnet",
    "Save it as 'tfmbs'": "Convert to tfmbs",
    "save it as 'tfmbs'": "convert to tfmbs",
}


def console(stderr: bool = False) -> Console:
    """A console without colours where it is no terminal."""
    made = Console(stderr=stderr, highlight=False, emoji=False)
    return made if made.is_terminal else Console(
        stderr=stderr, highlight=False, emoji=False, width=_WIDTH, color_system=None
    )  # fmt: skip


def print_json(data: Any) -> None:
    """Numbers that are not finite, which JSON lacks, become "nan", "inf" and "-inf"."""
    print(json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data


def message(error: Exception) -> str:
    """An error in one line, in the command's words."""
    text = " ".join(str(error).split())
    for library, command in _AS_OPTIONS.items():
        text = text.replace(library, command)
    return text


def describe(error: CheckpointError) -> dict[str, Any]:
    """An error for programs."""
    return {
        "file": error.file,
        "tensor": error.tensor,
        "reason": error.reason,
        "remedy": message(Exception(error.remedy)),
        "offset": error.offset,
    }


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Ends a command with exit code 1 and one line for what is refused, damaged or missing."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (FabricError, OSError) as error:
            text = message(error)
        except ModuleNotFoundError as error:
            text = f"{error.name} is not installed: pip install {error.name}"
        else:
            return
        sys.stdout.flush()
        console(stderr=True).print(Text("error: ", style="bold red") + Text(text), soft_wrap=True)
        raise typer.Exit(1)

    return wrapped
