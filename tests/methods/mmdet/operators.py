"""Compares, in the torch environment, the operators that stand for mmcv's compiled ones with slow references."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from checking import refusal

from segbench.methods.mmdet.mmcv_ext import OperatorStandIn, ensure_mmcv_ext

COMPILED = ensure_mmcv_ext()


def slow_nms(boxes: npt.NDArray[Any], scores: npt.NDArray[Any], threshold: float, offset: int) -> list[int]:
    """Non-maximum suppression, box by box."""
    kept: list[int] = []
    for n in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[n], boxes[m], offset) <= threshold for m in kept):
            kept.append(int(n))
    return kept


def iou(a: npt.NDArray[Any], b: npt.NDArray[Any], offset: int) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return inter / (sum(areas) - inter)


def roi_align_matrix(
    shape: tuple[int, int], roi: npt.NDArray[Any], size: int, scale: float, ratio: int, aligned: bool
) -> npt.NDArray[np.float64]:
    """RoIAlign of one box as a matrix (size * size, H * W): it is linear in the features (He et al., ICCV 2017)."""
    height, width = shape
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (c * scale - shift for c in roi)
    w, h = x2 - x1, y2 - y1
    if not aligned:
        w, h = max(w, 1.0), max(h, 1.0)
    bin_w, bin_h = w / size, h / size
    n_y = ratio if ratio > 0 else math.ceil(h / size)
    n_x = ratio if ratio > 0 else math.ceil(w / size)
    matrix = np.zeros((size * size, height * width))
    for row, column, i, j in itertools.product(range(size), range(size), range(n_y), range(n_x)):
        y = y1 + row * bin_h + (i + 0.5) * bin_h / n_y
        x = x1 + column * bin_w + (j + 0.5) * bin_w / n_x
        if y < -1 or y > height or x < -1 or x > width:
            continue
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        top, left = int(y), int(x)
        for yy, xx in itertools.product((top, top + 1), (left, left + 1)):
            weight = max(0.0, 1 - abs(y - yy)) * max(0.0, 1 - abs(x - xx))
            if weight:
                matrix[row * size + column, yy * width + xx] += weight / (n_y * n_x)
    return matrix


def check_nms_keeps_what_a_slow_loop_keeps() -> None:
    from mmcv.ops import nms

    rng = np.random.default_rng(0)
    for offset in (0, 1):
        corners = rng.integers(0, 60, (200, 2)).astype(np.float32)
        boxes = np.concatenate([corners, corners + rng.integers(3, 25, (200, 2))], 1).astype(np.float32)
        scores = rng.permutation(200).astype(np.float32) / 200
        dets, kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5, offset=offset)
        assert kept.tolist() == slow_nms(boxes, scores, 0.5, offset)
        assert np.array_equal(dets[:, :4].numpy(), boxes[kept.numpy()])


def check_roi_align_is_the_mean_over_each_bin_forward_and_backward() -> None:
    from mmcv.ops import roi_align

    rng = np.random.default_rng(1)
    rois = np.array(
        [[0, 4, 6, 40, 44], [1, 0, 0, 64, 60], [0, -8, 30, 20, 70], [1, 10.3, 11.7, 13.2, 12.1]], np.float64
    )
    for ratio, aligned in itertools.product((0, 2), (True, False)):
        features = torch.from_numpy(rng.normal(size=(2, 3, 16, 17))).requires_grad_()
        output = roi_align(features, torch.from_numpy(rois), (5, 5), 0.25, ratio, "avg", aligned)
        grad = rng.normal(size=output.shape)
        output.backward(torch.from_numpy(grad))
        expected, expected_grad = np.zeros(output.shape), np.zeros(features.shape)
        for n, (image, *corners) in enumerate(rois):
            matrix = roi_align_matrix((16, 17), np.array(corners), 5, 0.25, ratio, aligned)
            for c in range(3):
                plane = features[int(image), c].detach().numpy()
                expected[n, c] = (matrix @ plane.ravel()).reshape(5, 5)
                expected_grad[int(image), c] += (matrix.T @ grad[n, c].ravel()).reshape(16, 17)
        assert np.allclose(output.detach().numpy(), expected, atol=1e-9)
        assert features.grad is not None
        assert np.allclose(features.grad.numpy(), expected_grad, atol=1e-9)


def check_sigmoid_focal_loss_is_its_formula_and_its_gradient_that_of_the_formula() -> None:
    from mmcv.ops.focal_loss import sigmoid_focal_loss

    rng = np.random.default_rng(2)
    logits, target = rng.normal(size=(40, 1)) * 3, rng.integers(0, 2, 40)
    got = sigmoid_focal_loss(torch.from_numpy(logits), torch.from_numpy(target), 2.0, 0.25, None, "none").numpy()
    for n, (x, t) in enumerate(zip(logits[:, 0], target, strict=True)):
        p = 1 / (1 + math.exp(-x))
        # class 0 is the only class, class 1 stands for none
        expected = -0.25 * (1 - p) ** 2 * math.log(p) if t == 0 else -0.75 * p**2 * math.log(1 - p)
        assert math.isclose(got[n, 0], expected, rel_tol=1e-6)
    leaf, classes = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(target)
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, classes, 2.0, 0.25, None, "sum"), leaf)


def check_deformable_attention_is_a_weighted_sum_of_samples_and_its_gradient_right() -> None:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    rng = np.random.default_rng(3)
    shapes, starts = torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20])
    value = torch.from_numpy(rng.normal(size=(1, 26, 2, 3))).requires_grad_()
    # the middles of pixels of both levels: samples are then the values themselves
    locations = np.zeros((1, 2, 2, 2, 1, 2))
    locations[..., 0, :, :] = (np.array([2, 1]) + 0.5) / np.array([5, 4])
    locations[..., 1, :, :] = (np.array([1, 0]) + 0.5) / np.array([3, 2])
    weights = torch.from_numpy(rng.uniform(size=(1, 2, 2, 2, 1)))
    apply = MultiScaleDeformableAttnFunction.apply
    got = apply(value, shapes, starts, torch.from_numpy(locations), weights, 64).detach().numpy()
    for query, head in itertools.product(range(2), range(2)):
        parts = weights[0, query, head, :, 0].numpy()
        expected = parts[0] * value[0, 5 + 2, head].detach().numpy() + parts[1] * value[0, 21, head].detach().numpy()
        assert np.allclose(got[0, query, head * 3 : head * 3 + 3], expected)
    free = torch.from_numpy(rng.uniform(0.2, 0.8, size=locations.shape)).requires_grad_()
    weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, p, w: apply(v, shapes, starts, p, w, 64), (value, free, weights))


def check_a_missing_operator_says_what_is_missing_when_it_is_called() -> None:
    import mmcv._ext as ext
    from mmcv.ops import soft_nms

    if COMPILED:
        return
    assert isinstance(ext, OperatorStandIn)
    said = refusal(lambda: soft_nms(torch.zeros(1, 4), torch.zeros(1)), NotImplementedError)
    assert said.startswith("mmcv's compiled operator 'softnms' is not in this environment")
    maximum = {"aligned_height": 1, "aligned_width": 1, "spatial_scale": 1.0, "sampling_ratio": 0, "pool_mode": 0}
    assert "pool_mode 'max'" in refusal(
        lambda: ext.roi_align_forward(*[None] * 5, **maximum, aligned=True), NotImplementedError
    )
