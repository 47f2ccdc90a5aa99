"""What torch's exporter says at every export of any model, kept from the user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_noise_hidden() -> Iterator[None]:
    """Hides two messages of torch's, and no others: that torchvision, which nobody asked for, is not
    installed, and that torch's copies of its own pytrees are deprecated."""

    def keep(record: logging.LogRecord) -> bool:  # one for each call: calls may overlap
        return not record.getMessage().startswith("torchvision is not installed. Skipping ")

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(keep)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        logger.removeFilter(keep)
