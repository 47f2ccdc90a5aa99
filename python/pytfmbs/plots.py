"""The public path of the pictures of telemetry; they are defined in pytfmbs.telemetry.plots."""

from .telemetry.plots import cycles_bar, sram_map, trit_weights

__all__ = ["cycles_bar", "sram_map", "trit_weights"]
