"""What ``import pytfmbs`` does for torch's distributed tensors, which a program may never import."""

from __future__ import annotations

from ..nn.imports import after_import


def register() -> None:
    """Has ternary layers compute with distributed weights, and torch's styles split ternary layers, as
    soon as torch has loaded either."""
    after_import("torch.distributed.tensor", _register_weights)
    after_import("torch.distributed.tensor.parallel.style", _register_styles)


def _register_weights() -> None:
    from . import trainable

    trainable.register()


def _register_styles() -> None:
    from . import styles

    styles.register()
