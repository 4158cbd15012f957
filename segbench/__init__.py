"""segbench: train, compare and publish cell segmentation methods on equal terms."""

__version__ = "0.1.0"
