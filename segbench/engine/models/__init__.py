"""Trained models as things of their own: found, described, and applied to images that nobody has annotated."""
