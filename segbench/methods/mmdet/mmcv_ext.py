"""Stands for mmcv's compiled operators where none are installed: torchvision and plain PyTorch answer in their place.

The ten methods call five families of operators: ``nms`` and ``roi_align`` everywhere, ``sigmoid_focal_loss`` and
``ms_deform_attn`` only on CUDA (on the CPU mmdet and mmcv take their own PyTorch code). Compiling mmcv takes an hour
for them; torchvision brings the first two compiled. A compiled ``mmcv._ext`` that is installed is always preferred.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

NAME = "mmcv._ext"


def ensure_mmcv_ext() -> bool:
    """Make ``mmcv._ext`` importable; returns True where it is the compiled one. To be called before ``mmcv.ops``."""
    known = sys.modules.get(NAME)
    if known is not None:
        return not isinstance(known, OperatorStandIn)
    if importlib.util.find_spec(NAME) is not None:
        return True
    sys.modules[NAME] = OperatorStandIn()
    return False


class OperatorStandIn(ModuleType):
    """A module with the operators below; any other name is a function that says what is missing when it is called."""

    def __init__(self) -> None:
        super().__init__(NAME, self.__doc__)
        # mmengine asks pkgutil for the module, which wants a spec
        self.__spec__ = importlib.machinery.ModuleSpec(NAME, None)
        self.__file__ = __file__
        for operator in (
            nms, roi_align_forward, roi_align_backward, sigmoid_focal_loss_forward, sigmoid_focal_loss_backward,
            ms_deform_attn_forward, ms_deform_attn_backward,
        ):  # fmt: skip
            setattr(self, operator.__name__, operator)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> Any:
            raise NotImplementedError(
                f"mmcv's compiled operator {name!r} is not in this environment, where torchvision stands for nms, "
                "roi_align, sigmoid_focal_loss and ms_deform_attn alone: install an onedl-mmcv that was built with "
                "MMCV_WITH_OPS=1 to use it"
            )

        return missing


def nms(boxes: Any, scores: Any, iou_threshold: float, offset: int) -> Any:
    """Return the indices of the boxes that remain, best score first.

    Parameters
    ----------
    boxes, scores
        (N, 4) corners and (N,).
    iou_threshold
        A box goes where its IoU with a better one is larger.
    offset
        Added to widths and heights: 0, or 1 for boxes whose corners are pixels.
    """
    import torch
    import torchvision

    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    return torchvision.ops.nms(boxes.float(), scores.float(), iou_threshold)


def roi_align_forward(
    features: Any, rois: Any, output: Any, argmax_y: Any, argmax_x: Any, *, aligned_height: int, aligned_width: int,
    spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Fill ``output`` (K, C, aligned_height, aligned_width) with the means over the bins of K boxes ``rois`` (K, 5).

    ``argmax_y`` and ``argmax_x`` belong to ``pool_mode`` 0 (the maximum), which raises NotImplementedError.
    """
    import torchvision

    del argmax_y, argmax_x
    _mean_only(pool_mode)
    size = (aligned_height, aligned_width)
    output.copy_(torchvision.ops.roi_align(features, rois, size, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Any, rois: Any, argmax_y: Any, argmax_x: Any, grad_features: Any, *, aligned_height: int,
    aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Fill ``grad_features`` (N, C, H, W) with the gradient of :func:`roi_align_forward` by its features.

    In float32 at least: torchvision has no kernel for bfloat16.
    """
    import torch

    del argmax_y, argmax_x
    _mean_only(pool_mode)
    n, c, h, w = grad_features.shape
    grad, boxes = _at_least_single(grad_output), _at_least_single(rois)
    grad_features.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad, boxes, spatial_scale, aligned_height, aligned_width, n, c, h, w, sampling_ratio, aligned
        )
    )


def sigmoid_focal_loss_forward(
    logits: Any, target: Any, weight: Any, output: Any, *, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the focal loss of ``logits`` (N, C); ``target`` (N,) is a class, C for none."""
    output.copy_(_focal_loss(_at_least_single(logits), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    logits: Any, target: Any, weight: Any, grad_logits: Any, *, gamma: float, alpha: float
) -> None:
    """Fill ``grad_logits`` (N, C) with the gradient of the sum of :func:`sigmoid_focal_loss_forward`."""
    import torch

    with torch.enable_grad():
        leaf = _at_least_single(logits.detach()).requires_grad_()
        (grad,) = torch.autograd.grad(_focal_loss(leaf, target, weight, gamma, alpha).sum(), leaf)
    grad_logits.copy_(grad)


def ms_deform_attn_forward(
    value: Any, spatial_shapes: Any, level_start_index: Any, locations: Any, weights: Any, *, im2col_step: Any
) -> Any:
    """Return multi-scale deformable attention (bs, queries, channels), by mmcv's own PyTorch code."""
    del level_start_index, im2col_step
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations, weights)


def ms_deform_attn_backward(
    value: Any, spatial_shapes: Any, level_start_index: Any, locations: Any, weights: Any, grad_output: Any,
    grad_value: Any, grad_locations: Any, grad_weights: Any, *, im2col_step: Any,
) -> None:  # fmt: skip
    """Fill the three gradients of :func:`ms_deform_attn_forward`, which is computed once more for them."""
    import torch

    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in (value, locations, weights)]
        output = ms_deform_attn_forward(
            leaves[0], spatial_shapes, level_start_index, leaves[1], leaves[2], im2col_step=im2col_step
        )
        grads = torch.autograd.grad(output, leaves, grad_output)
    for filled, grad in zip((grad_value, grad_locations, grad_weights), grads, strict=True):
        filled.copy_(grad)


def _focal_loss(logits: Any, target: Any, weight: Any, gamma: float, alpha: float) -> Any:
    import torch
    from torch.nn import functional

    if weight.numel():
        raise NotImplementedError("sigmoid_focal_loss with class weights needs mmcv's compiled operators")
    n_classes = logits.shape[1]
    positive = functional.one_hot(target, n_classes + 1)[:, :n_classes].to(logits.dtype)
    p = torch.sigmoid(logits)
    # -log(p) and -log(1 - p) from the logits, which do not overflow
    loss = positive * alpha * (1 - p) ** gamma * functional.softplus(-logits)
    return loss + (1 - positive) * (1 - alpha) * p**gamma * functional.softplus(logits)


def _at_least_single(values: Any) -> Any:
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))


def _mean_only(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "roi_align with pool_mode 'max' needs mmcv's compiled operators; 'avg' is answered here"
        )
