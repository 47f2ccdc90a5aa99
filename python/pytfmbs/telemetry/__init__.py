"""What a fabric counted, as tables and pictures; the rules of ``telemetry_hint``."""
