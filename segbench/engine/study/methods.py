"""Which methods the published study compared."""

from __future__ import annotations

STUDY_METHODS = (
    "cellpose", "mesmer", "stardist", "retinamask", "featurenet", "centermask2", "mask-rcnn", "resnest", "ms-rcnn",
    "mask2former", "cascade-mask-rcnn-seesaw", "swin-s", "swin-t", "solov2", "rf-next", "hrnet", "res2net",
    "segment-anything",
)  # fmt: skip
"""The eighteen methods of the published comparison."""
