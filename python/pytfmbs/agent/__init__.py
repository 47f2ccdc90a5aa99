"""The Adaptive Runtime Agent: telemetry, its history, and what it decides (docs/agent.md)."""

from .agent import AdaptiveRuntimeAgent
from .application import Application
from .costs import CpuCost
from .history import History, Observation
from .plan import ACTIONS, Decision, Plan
from .records import LayerRecord, TelemetryError

__all__ = [
    "ACTIONS",
    "AdaptiveRuntimeAgent",
    "Application",
    "CpuCost",
    "Decision",
    "History",
    "LayerRecord",
    "Observation",
    "Plan",
    "TelemetryError",
]
