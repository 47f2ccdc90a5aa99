"""The public path of the tables of telemetry; they are defined in pytfmbs.telemetry.report."""

from .telemetry.report import fabric_table, format_energy, new_table, print_profile, tile_table

__all__ = ["fabric_table", "format_energy", "new_table", "print_profile", "tile_table"]
