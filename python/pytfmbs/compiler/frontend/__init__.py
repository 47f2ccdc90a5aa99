"""ONNX graphs and PyTorch models: read, checked, and taken an operator at a time."""
