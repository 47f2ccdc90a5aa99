"""MLIR modules as functions of this process, and what they say of their layers."""
