"""Ternary layers that several processes share, with the numbers of one process.

torch.distributed moves all bytes. ``parallelize_module`` with ``ColwiseParallel`` and
``RowwiseParallel`` takes ternary layers once this package is imported; nothing here needs to be called
for that. ``gather_profile`` collects the processes' telemetry. ``gather_trits`` has FSDP2 send trits.
"""

from __future__ import annotations

from .gathering import gather_trits
from .profiles import gather_profile

__all__ = ["gather_profile", "gather_trits"]
