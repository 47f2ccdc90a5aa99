"""Architectures that vLLM lacks."""

from __future__ import annotations


def register_models() -> None:
    """Idempotent. The module of a model is imported when vLLM builds it."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(
        "BitNetForCausalLM", "pytfmbs.integrations.vllm.bitnet:BitNetForCausalLM"
    )
