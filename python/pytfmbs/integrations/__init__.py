"""Other packages: a folder each, imported only where the other package is.

transformers: ``from pytfmbs.integrations.transformers import TFMBSConfig`` (docs/transformers.md).
"""
