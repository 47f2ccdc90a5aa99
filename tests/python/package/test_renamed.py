"""Public names of the release before go on working, with a warning that names the new one."""

from __future__ import annotations

import pytest
import pytfmbs
import torch


def test_kernel_sets_is_isa_variants() -> None:
    with pytest.warns(DeprecationWarning, match=r"is now pytfmbs\.isa_variants"):
        from pytfmbs import kernel_sets
    assert kernel_sets() == pytfmbs.isa_variants()
    assert "kernel_sets" not in pytfmbs.__all__
    with pytest.raises(AttributeError, match="no attribute 'kernel_set'"):
        _ = pytfmbs.kernel_set


def test_packed_layout_is_packing() -> None:
    layer = pytfmbs.TFMBSLinear(64, 8).eval()
    assert layer.packing is None
    with torch.no_grad():
        layer(torch.randn(1, 64))
    assert layer.packing in ("packed2", "packed_base3")
    for one in (layer, pytfmbs.TFMBSPackedLinear(64, 8, packing="packed_base3")):
        with pytest.warns(DeprecationWarning, match="use packing"):
            layout = one.packed_layout
        assert (one.packing == "packed_base3") == layout.endswith("fives")
