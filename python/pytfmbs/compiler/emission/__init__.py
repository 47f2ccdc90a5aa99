"""MLIR as text: values, scalars, structured ops, ternary layers, and the module that they make."""
