"""Statements about the parts of detectron2's methods, in their environment: ``python detectron2_parts.py FOLDER``.

Prints one JSON object: the name of each statement, and null or what went wrong.
"""

# ruff: noqa: T201, ARG001, PT017 - its output is how it tells; each statement takes a folder; there is no pytest here
from __future__ import annotations

import contextlib
import inspect
import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from detectron2.data import transforms as T  # noqa: N812 - as upstream's own documentation names it
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from segbench.errors import SegbenchError
from segbench.methods import Arrays, Budget, Checkpoints, Devices, ImageStack, Job, Progress, Task, mask_encoding
from segbench.methods.base import DivergedError
from segbench.methods.detectron2 import (
    CenterMask2,
    ResNeSt,
    _backbones,
    _cascade,
    _center_mask,
    _data,
    _inference,
    _training,
)
from segbench.methods.planes import Normalisation, three_planes
from segbench.methods.predictions import run_lengths

NORMALISATION = Normalisation((0.3, 0.3, 0.3), (0.2, 0.2, 0.2))
TINY: Mapping[str, Any] = {
    **CenterMask2.card.defaults,
    "backbone": "ese_vovnet19b_slim",
    "width": 32,
    "roi_batch": 100,
    "candidates_train": 200,
    "train_scales": (1.0, 1.5),
    "test_scale": 1.0,
}
TINY_CASCADE: Mapping[str, Any] = {
    **ResNeSt.card.defaults,
    "backbone": "resnest14d",
    "deformable_groups": 0,
    "width": 32,
    "box_convolutions": 1,
    "box_units": 32,
    "mask_convolutions": 1,
    "proposals_nms": 0.1,
}

FEW: Mapping[str, Any] = {"roi_batch": 16, "candidates_train": 200, "proposals_train": 50}


def labels_of_three() -> np.ndarray[Any, Any]:
    labels = np.zeros((64, 64), np.int32)
    labels[5:15, 5:17], labels[30:45, 20:33], labels[50:60, 50:64] = 1, 4, 2
    return labels


def the_attention_module_agrees_with_a_computation_by_hand(folder: Path) -> None:
    attention = _center_mask.SpatialAttention()
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-1.0, 6.0], [5.0, 0.0]]]])
    # mean over channels [[0, 4], [4, 2]], maximum [[1, 6], [5, 4]]
    weight = torch.zeros(1, 2, 3, 3)
    weight[0, 0, 1, 1], weight[0, 1, 1, 2] = 0.5, 0.25  # half the mean here, a quarter of the maximum to the right
    attention.conv.weight.data = weight
    logits = torch.tensor([[0.5 * 0 + 0.25 * 6, 0.5 * 4 + 0.0], [0.5 * 4 + 0.25 * 4, 0.5 * 2 + 0.0]])
    expected = x / (1 + torch.exp(-logits))
    assert torch.allclose(attention(x), expected), (attention(x), expected)


def levels_follow_equation_2(folder: Path) -> None:
    image = torch.full((6,), 256.0 * 256.0)
    sides = torch.tensor([256.0, 182.0, 181.0, 129.0, 128.0, 8.0])
    # k = ceil(5 - log2(A / a)): a whole image 5; over half of it 5; half or less 4;
    # over a quarter 4; a quarter 3; small 3
    levels = _center_mask.assign_levels(sides**2, image, 3, 5).tolist()
    assert levels == [5, 5, 4, 4, 3, 3], levels


def the_pooler_takes_each_box_from_its_level(folder: Path) -> None:
    pooler = _center_mask.RatioPooler(14, [1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2")
    features = [torch.full((1, 2, 64 // s, 64 // s), float(n)) for n, s in enumerate((8, 16, 32), start=3)]
    boxes = Boxes(torch.tensor([[0.0, 0, 60, 60], [0, 0, 40, 40], [0, 0, 8, 8]]))
    pooled = pooler(features, [boxes], [(64, 64)])
    assert pooled.shape == (3, 2, 14, 14)
    assert pooled.mean((1, 2, 3)).tolist() == [5.0, 4.0, 3.0]


def heads_have_the_published_shapes(folder: Path) -> None:
    pooled = torch.rand(5, 256, 14, 14)
    masks = _center_mask.SpatialAttentionMaskHead(256)(pooled)
    assert masks.shape == (5, 1, 28, 28)
    assert _center_mask.MaskIoUHead(256)(pooled, masks.sigmoid()).shape == (5,)
    assert _center_mask.SpatialAttentionMaskHead(256)(pooled[:0]).shape == (0, 1, 28, 28)


def masks_on_a_label_map_equal_bit_masks(folder: Path) -> None:
    instances = _data.instances_of(labels_of_three())
    masks = instances.gt_masks
    bits = BitMasks(torch.stack([masks.labels == one for one in masks.ids]))
    assert torch.equal(instances.gt_boxes.tensor, bits.get_bounding_boxes().tensor)
    assert masks.areas().tolist() == bits.tensor.sum((1, 2)).tolist() == [120, 140, 195]
    boxes = torch.tensor([[4.3, 5.1, 18.0, 12.7], [15.0, 28.5, 40.0, 40.2], [45.0, 48, 64, 64], [0.0, 0, 9, 9]])
    order = torch.tensor([0, 2, 1, 0])
    assert torch.equal(masks[order].crop_and_resize(boxes, 28), bits[order].crop_and_resize(boxes, 28))
    # rows 5 to 12 of the first cell have their centres in 5.1 to 12.7 (the last at
    # 12.5), in all 12 columns; last box 4 x 4
    within = masks[order].areas_within(boxes).tolist()
    assert within[0] == 8 * 12, within
    assert within[3] == 16, within


def masks_in_parts_are_those_made_at_once(folder: Path) -> None:
    masks = _data.instances_of(labels_of_three()).gt_masks[torch.tensor([0, 2, 1, 0, 1])]
    boxes = torch.tensor(
        [[4.3, 5.1, 18, 12.7], [15, 28.5, 40, 40.2], [45.0, 48, 64, 64], [0, 0, 9, 9], [-3, 9, 70, 70]]
    )
    whole = masks.crop_and_resize(boxes, 28), masks.areas_within(boxes)
    with mock.patch.dict(_data._MASK_BYTES, cpu=2 * 4 * 64 * 64):
        assert len(list(masks._parts(boxes))) == 3
        assert torch.equal(masks.crop_and_resize(boxes, 28), whole[0])
        assert torch.equal(masks.areas_within(boxes), whole[1])


def windows_are_scaled_and_mirrored_as_detectron2_does_it(folder: Path) -> None:
    rng = np.random.default_rng(3)
    labels = np.zeros((6, 48, 64), np.int32)
    for n in range(6):
        for cell in range(1, 9):
            y, x = rng.integers(0, 40), rng.integers(0, 56)
            labels[n, y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = 5 * cell
    for channels in (1, 2, 3):
        np.save(folder / "x.npy", rng.random((6, channels, 48, 64), np.float32))
        np.save(folder / "y.npy", labels)
        stack = ImageStack(Arrays(str(folder / "x.npy"), tuple(range(channels)), None, str(folder / "y.npy")))
        for scales in ((1.0,), (1.71875, 2.265625, 3.1), (0.4, 0.77)):
            mapper = _data.TrainingMapper(stack, {"train_scales": scales, "flip": 0.5})
            np.random.seed(4)
            batch = _data.packed([sample for n in range(6) if (sample := mapper(n)) is not None])
            found = _data.training_inputs(batch, torch.device("cpu"))
            np.random.seed(4)
            expected = [sample for n in range(6) if (sample := scaled_by_detectron2(stack, n, scales)) is not None]
            for ours, (image, seen) in zip(found, expected, strict=True):
                assert torch.allclose(ours["image"], image, atol=1e-6)
                instances = ours["instances"]
                cells = [cell for cell in np.unique(seen) if cell]
                bits = BitMasks(np.stack([seen == cell for cell in cells]))
                assert np.array_equal(instances.gt_masks.labels.numpy(), seen)
                assert instances.gt_masks.ids.tolist() == cells
                assert torch.equal(instances.gt_boxes.tensor, bits.get_bounding_boxes().tensor)
                assert torch.equal(instances.gt_masks.areas(), bits.tensor.sum((1, 2)).float())


def scaled_by_detectron2(stack: ImageStack, window: int, scales: Sequence[float]) -> Any:
    sides = [_data.side_of(stack.size, scale) for scale in scales]
    augment = T.AugmentationList([T.ResizeShortestEdge(sides, sys.maxsize, "choice"), T.RandomFlip(0.5)])
    image = np.ascontiguousarray(np.moveaxis(three_planes(stack[window]), 0, -1))
    seen = T.AugInput(image, sem_seg=stack.labels(window).astype(np.float32))
    augment(seen)
    labels = np.ascontiguousarray(seen.sem_seg).astype(np.int32)
    return (torch.from_numpy(np.moveaxis(seen.image, -1, 0).copy()), labels) if labels.any() else None


def predictions_are_those_of_detectron2s_own_steps(folder: Path) -> None:
    rng = np.random.default_rng(5)
    for method, settings, (height, width) in ((CenterMask2, TINY, (128, 96)), (ResNeSt, TINY_CASCADE, (40, 32))):
        images = [rng.random((1, height, width), np.float32) for _ in range(3)]
        torch.manual_seed(0)
        model = method().build({**settings, "score_threshold": 0.0, "nms_threshold": 0.5}, NORMALISATION).eval()
        masks_vary(model)
        together = list(_inference.predict(model, images, 1.5, 2, torch.device("cpu")))
        assert len(together) == 3
        for image, found in zip(images, together, strict=True):
            seen = T.AugInput(np.ascontiguousarray(np.moveaxis(three_planes(image), 0, -1)))
            T.ResizeShortestEdge([3 * width // 2] * 2, sys.maxsize)(seen)
            asked = {"image": torch.from_numpy(np.moveaxis(seen.image, -1, 0).copy()), "height": height, "width": width}
            with torch.no_grad():
                instances = model([asked])[0]["instances"]
            pairs = zip(instances.pred_masks.numpy(), instances.scores.tolist(), strict=True)
            expected = [(run_lengths(mask), score) for mask, score in pairs if mask.any()]
            assert len(expected) == len(found.scores) > 5
            # windows together are summed in another order than one alone: boxes of like scores may change places
            assert np.allclose(np.sort(found.scores), np.sort([score for _, score in expected]), atol=1e-5)
            theirs = {runs.tobytes() for runs, _ in expected}
            alike = sum(runs.tobytes() in theirs for runs in found.counts)
            assert alike >= 0.98 * len(expected), (alike, len(expected))


def proposals_of_all_images_at_once_are_detectron2s(folder: Path) -> None:
    torch.manual_seed(1)
    sizes, levels = [(60, 80), (64, 64), (20, 30)], (400, 90, 7)
    corners = [torch.rand(3, n, 2) * 90 - 5 for n in levels]
    boxes = [torch.cat([corner, corner + torch.rand_like(corner) * 25 - 1], dim=2) for corner in corners]
    scores = [torch.randn(3, n) for n in levels]
    # what upstream does to small sets of boxes, moving levels apart, rounds them otherwise
    for before, after in ((100, 60), (1000, 1000)):
        expected = find_top_rpn_proposals(boxes, scores, sizes, 0.3, before, after, 0.0, True)
        found = _cascade.top_proposals(boxes, scores, sizes, nms=0.3, before=before, after=after, training=True)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.image_size == theirs.image_size
            assert len(theirs) > 3
            assert torch.equal(ours.proposal_boxes.tensor, theirs.proposal_boxes.tensor)
            assert torch.equal(ours.objectness_logits, theirs.objectness_logits)
    scores[0][1, 5] = torch.nan
    found = _cascade.top_proposals(boxes, scores, sizes, nms=0.3, before=1000, after=9, training=False)
    assert all(one.objectness_logits.isfinite().all() for one in found)
    try:
        _cascade.top_proposals(boxes, scores, sizes, nms=0.3, before=1000, after=9, training=True)
    except FloatingPointError as error:
        assert "diverged" in str(error)
    else:
        raise AssertionError("NaN passed")


def boxes_of_all_images_at_once_are_those_of_fcos(folder: Path) -> None:
    torch.manual_seed(0)
    model = CenterMask2().build({**TINY, "score_threshold": 0.075, "candidates_train": 50}, NORMALISATION).eval()
    images = model.preprocess_image([{"image": torch.rand(3, 128, 96)} for _ in range(3)])
    with torch.no_grad():
        levels = model.backbone(images.tensor)
        features = [levels[name] for name in model.head_in_features]
        predictions = [[level + 0.3 * torch.randn_like(level) for level in kind] for kind in model.head(features)]
        for training in (True, False):
            model.training = training
            found = model._boxes(images, features, predictions)
            limits = model._limits[training]
            model.test_topk_candidates, model.max_detections_per_image = limits.candidates, limits.boxes
            copies = [[level.clone() for level in kind] for kind in predictions]
            expected = FCOS.forward_inference(model, images, features, copies)
            for ours, theirs in zip(found, expected, strict=True):
                assert len(theirs) > 20
                assert torch.allclose(ours.scores, theirs.scores, atol=1e-6)
                assert torch.allclose(ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=1e-4)
                assert ours.pred_classes.tolist() == theirs.pred_classes.tolist()


def masks_vary(model: Any) -> None:
    """Give an untrained model masks that are not the whole box or nothing."""
    head = model.mask_head[-1] if isinstance(model, _center_mask.CenterMask) else model.roi_heads.mask_head.predictor
    torch.nn.init.normal_(head.weight, std=1.0)
    torch.nn.init.constant_(head.bias, 0.3 * head.weight.norm())


def one_window_whose_highest_level_is_one_pixel_is_predicted(folder: Path) -> None:
    model = CenterMask2().build(TINY, NORMALISATION)
    norm = model.head.cls_subnet[1]
    assert torch.allclose(norm(torch.rand(1, 32, 1, 1))[0, :, 0, 0], norm.bias, atol=1e-4)
    x = torch.rand(2, 32, 3, 3)
    assert torch.equal(norm(x), torch.nn.functional.group_norm(x, 32, norm.weight, norm.bias))
    model.eval()
    assert len(list(_inference.predict(model, [np.ones((1, 64, 64), np.float32)], 1.0, 4, torch.device("cpu")))) == 1


def gradients_are_clipped_as_one_by_one(folder: Path) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 700, 1)]
    for parameter, size in zip(parameters, (0.1, 5.0, 0.0), strict=True):
        parameter.grad = torch.randn_like(parameter) * size
    expected = [parameter.grad.clone() for parameter in parameters]
    for parameter, gradient in zip(parameters, expected, strict=True):
        other = torch.nn.Parameter(parameter.detach())
        other.grad = gradient
        torch.nn.utils.clip_grad_norm_(other, 1.0)
    _training.clip_each(torch.optim.SGD(parameters, lr=0.1), 1.0)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-6)
    assert torch.equal(parameters[0].grad, expected[0])  # one within the limit is left as it is


def one_pass_over_all_weights_takes_the_same_steps(folder: Path) -> None:
    found = []
    for fused in (False, True):
        torch.manual_seed(2)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        optimizer = _training.build_sgd(_training.solver(ResNeSt.card.defaults, 100), model, fused=fused)
        assert "Clip" not in type(optimizer).__name__
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(8, 5)).square().mean().backward()
            optimizer.step()
        found.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in zip(*found, strict=True))


def run_lengths_of_many_masks_are_those_of_each(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for shape, share in (((40, 13, 7), 0.3), ((300, 64, 64), 0.01), ((5, 1, 9), 0.5), ((5, 9, 1), 0.5), ((3, 4, 4), 1)):
        drawn = rng.random(shape) < share
        drawn[1] = False
        drawn[2, 0] = True
        expected = [run_lengths(mask).tolist() for mask in drawn]
        for masks in (torch.from_numpy(drawn), torch.from_numpy(drawn.swapaxes(1, 2).copy()).transpose(1, 2)):
            assert [runs.tolist() for runs in mask_encoding.encode(masks)] == expected
            # what a GPU does gives the same places on a processor
            found = mask_encoding._changes_on_device(masks)
            assert np.array_equal(found, mask_encoding._changes(masks.numpy(), np.empty_like(drawn)))
    assert mask_encoding.encode(torch.zeros((0, 4, 4), dtype=torch.bool)) == []


def mask_iou_targets_know_what_the_box_hides(folder: Path) -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[:, :] = 1
    region = Instances((64, 64))
    region.proposal_boxes = Boxes(torch.tensor([[0.0, 0, 32, 64]]))
    region.gt_masks = _data.CellMasks(torch.from_numpy(labels), torch.tensor([1]))
    truth = torch.ones(1, 28, 28, dtype=torch.bool)
    # the box shows half of the cell: a mask that fills the box has IoU one half with the whole
    target = _center_mask.mask_iou_targets(truth, truth, [region])
    assert torch.allclose(target, torch.tensor([0.5])), target


def training_gives_every_parameter_a_gradient(folder: Path) -> None:
    torch.manual_seed(0)
    model = CenterMask2().build(TINY, NORMALISATION).train()
    batch = [{"image": torch.rand(3, 64, 64), "instances": _data.instances_of(labels_of_three())} for _ in range(2)]
    with EventStorage(0):
        losses = model(batch)
    assert set(losses) == {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr", "loss_mask", "loss_mask_iou"}
    sum(losses.values()).backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing, missing


def half_precision_gives_the_losses_of_single_precision(folder: Path) -> None:
    # autocast on the processor goes through the same code as on a GPU; a scaler multiplies the loss there, too
    torch.manual_seed(0)
    model = CenterMask2().build(TINY, NORMALISATION).train()
    batch = [{"image": torch.rand(3, 64, 64), "instances": _data.instances_of(labels_of_three())} for _ in range(2)]
    found = []
    for half in (False, True):
        torch.manual_seed(7)
        model.zero_grad()
        model.loss_normalizer = 300.0
        with EventStorage(0), torch.autocast("cpu", dtype=torch.float16, enabled=half):
            losses = model(batch)
        (sum(losses.values()) * 256).backward()
        found.append({name: float(loss.detach()) for name, loss in losses.items()})
    broken = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not broken, broken
    # ten bits of mantissa, through some forty layers: a few per cent
    for name, loss in found[0].items():
        assert abs(found[1][name] - loss) <= 0.02 + 0.05 * abs(loss), (name, loss, found[1][name])


def steps_that_the_scaler_skips_are_no_divergence_until_there_are_too_many(folder: Path) -> None:
    class Overflowing(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, overflows: int) -> None:
            super().__init__()
            self.weight, self.left = torch.nn.Parameter(torch.ones(1)), overflows

        def forward(self, data: Any) -> Any:  # noqa: ARG002
            self.left -= 1
            return {"loss": (self.weight * (torch.inf if self.left >= 0 else 2)).sum()}

    def trained(overflows: int) -> tuple[Any, Progress]:
        model, steps, progress = Overflowing(overflows), overflows + 2, Progress(folder / "p.jsonl")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
        trainer = _training.Trainer(model.train(), iter(range(steps)), optimizer, "float16", torch.device("cpu"))
        trainer.register_hooks([_training._Report(model, progress, Checkpoints(None), first=True)])
        trainer.train(0, steps)
        return model, progress

    model, progress = trained(overflows=3)
    # the weight moved in the two steps after them alone
    assert [point["loss"] for point in progress.history] == [None] * 3 + [2.0, 1.0], progress.history
    assert model.weight.item() == 0
    try:
        trained(overflows=60)
    except DivergedError as error:
        assert str(error) == "the gradients of 41 steps in a row, up to step 41, are not finite at any scale", error
    else:
        raise AssertionError("it went on")


def published_backbones_are_as_large_as_published(folder: Path) -> None:
    # ResNeSt-200 has 70.2 M parameters with its classifier of 2.05 M (Zhang et al., table 1)
    for name, stages, millions in (
        ("resnest200e", ("res2", "res3", "res4", "res5"), 68.15), ("ese_vovnet99b", ("res3", "res4", "res5"), 62.17),
    ):  # fmt: skip
        with torch.device("meta"):
            backbone = _backbones.TimmBackbone(name, stages, "none")
        assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2) == millions, name


def deformable_convolutions_start_as_half_the_plain_ones_and_leave_the_first_stage(folder: Path) -> None:
    backbone = _backbones.TimmBackbone("resnest14d", ("res2", "res3", "res4", "res5"), "none")
    plain = backbone.network.layer2[0].conv2.conv
    x = torch.rand(2, plain.in_channels, 8, 8)
    expected = plain(x)
    _backbones.deform(backbone, 2)
    network = backbone.network
    changed = [name for name, module in network.named_modules() if isinstance(module, _backbones.DeformableConvolution)]
    assert changed == [f"layer{stage}.0.conv2.conv" for stage in (2, 3, 4)], changed
    # the points have not moved, and their weights are sigmoid(0)
    assert torch.allclose(network.layer2[0].conv2.conv(x), 0.5 * expected, atol=1e-5)
    other = _backbones.TimmBackbone("ese_vovnet19b_slim", ("res3", "res4", "res5"), "none")
    with contextlib.suppress(SegbenchError):
        _backbones.deform(other, 2)
        raise AssertionError("a backbone without split attention was deformed")


def another_order_in_memory_changes_nothing_but_rounding(folder: Path) -> None:
    batch = [{"image": torch.rand(3, 64, 64), "instances": _data.instances_of(labels_of_three())} for _ in range(2)]
    for method, settings, last in (
        (CenterMask2, TINY, {True}), (ResNeSt, {**TINY_CASCADE, **FEW, "deformable_groups": 2}, {True, False}),
    ):  # fmt: skip
        torch.manual_seed(0)
        model = method().build(settings, NORMALISATION).train()
        found = []
        for turn in (False, True):
            if turn:
                _backbones.channels_last(model)
            torch.manual_seed(7)
            model.loss_normalizer = 300.0
            with EventStorage(0):
                losses = model(batch)
            found.append(torch.stack([loss.detach() for loss in losses.values()]))
        assert torch.allclose(*found, rtol=1e-3), found
        wide = [weight for weight in model.parameters() if weight.dim() == 4 and min(weight.shape[1:]) > 1]
        assert {weight.is_contiguous(memory_format=torch.channels_last) for weight in wide} == last


def a_frozen_norm_is_not_trained_and_keeps_its_activation(folder: Path) -> None:
    backbone = _backbones.TimmBackbone("ese_vovnet19b_slim", ("res3", "res4", "res5"), "none", frozen_norm=True).train()
    assert not any("bn" in name for name, _ in backbone.named_parameters())
    assert all(feature.min() >= 0 for feature in backbone(torch.randn(1, 3, 64, 64)).values())


def weights_come_from_a_local_file(folder: Path) -> None:
    import timm

    torch.manual_seed(3)
    donor = timm.create_model("ese_vovnet19b_slim", num_classes=1000)
    torch.save(donor.state_dict(), folder / "donor.pth")
    backbone = _backbones.TimmBackbone("ese_vovnet19b_slim", ("res3", "res4", "res5"), str(folder / "donor.pth"))
    ours, theirs = backbone.network.state_dict(), donor.state_dict()
    assert ours
    # timm flattens the names of what it takes as features
    assert all(torch.equal(ours[name], theirs[re.sub("^(stem|stages)_", r"\1.", name)]) for name in ours)


def missing_weights_are_one_clear_line(folder: Path) -> None:
    donor = folder / "of_another.pth"
    torch.save({"stem.weight": torch.zeros(1)}, donor)
    for pretrained, name, said in (
        (str(folder / "none.pth"), "ese_vovnet19b_slim", "is no file"),
        ("imagenet", "ese_vovnet99b", "no ImageNet weights for ese_vovnet99b"),
        (str(donor), "ese_vovnet19b_slim", "does not hold timm's weights"),
    ):
        try:
            _backbones.create(name, pretrained, features_only=True)
        except SegbenchError as error:
            assert said in str(error), str(error)
            assert "\n" not in str(error)
        else:
            raise AssertionError(f"{pretrained} was taken")


def imagenet_weights_that_cannot_be_fetched_are_one_clear_line(folder: Path) -> None:
    try:
        _backbones.create("resnest14d", "imagenet", features_only=True)
    except SegbenchError as error:
        assert "resnest14d.safetensors" in str(error), str(error)
        assert "\n" not in str(error)
    else:
        raise AssertionError("weights were fetched without a network")


def batches_divide_the_endless_shuffle_and_go_on_where_they_stopped(folder: Path) -> None:
    whole = list(_take(_data.ResumedSampler(5, 7, 0), 15))
    assert sorted(whole[:5]) == sorted(whole[5:10]) == [0, 1, 2, 3, 4]
    assert list(_take(_data.ResumedSampler(5, 7, 6), 9)) == whole[6:]


def a_resumed_training_ends_in_the_same_weights(folder: Path) -> None:
    straight = _trained(folder, Checkpoints(None), 4)
    kept = folder / "checkpoints"
    _trained(folder, _StopAfter(kept, 2), 4)
    checkpoints = Checkpoints(kept)
    checkpoints.begin()
    resumed = _trained(folder, checkpoints, 4)
    assert checkpoints.earlier_s > 0
    for (name, one), other in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert one == other if isinstance(one, dict) else torch.equal(one, other), name


class _Stopped(Exception):  # noqa: N818 - it stands for the end of a machine
    pass


class _StopAfter(Checkpoints):
    """Writes a checkpoint after some steps and then fails, as a machine does."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder, 0.0)
        self.begin()
        self._left = steps

    def due(self) -> bool:
        self._left -= 1
        if self._left < 0:
            raise _Stopped
        return super().due() and self._left == 0


def _trained(folder: Path, checkpoints: Checkpoints, iterations: int) -> Any:
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.random((4, 1, 64, 64), np.float32))
    np.save(folder / "y.npy", np.stack([labels_of_three()] * 4))
    arrays = Arrays(str(folder / "x.npy"), (0,), None, str(folder / "y.npy"))
    job = Job(
        run_id="r", method="m:M", task=Task("t", "d", ("nuclear",), "nuclear"), settings=TINY, seed=5, train=arrays,
        budget=Budget(batch_size=2, iterations=iterations), output=str(folder), devices=Devices(num_cpus=1),
    )  # fmt: skip
    torch.manual_seed(0)
    model = CenterMask2().build(TINY, NORMALISATION)
    stack = ImageStack(arrays)
    with contextlib.suppress(_Stopped):
        _training.fit(model, stack, range(4), job, torch.device("cpu"), Progress(folder / "p.jsonl"), checkpoints)
    return model


def a_learning_rate_schedule_fits_the_budget(folder: Path) -> None:
    cfg = _training.solver(ResNeSt.card.defaults, 50_000)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS) == ((25_000, 40_000), 1000)
    cfg = _training.solver(CenterMask2.card.defaults, 200)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS) == ((100, 150), 20)


def _take(sampler: Any, n: int) -> Any:
    return (index for index, _ in zip(sampler, range(n), strict=False))


def statements() -> list[Callable[[Path], None]]:
    """Return the functions above that take a folder."""
    functions = [value for name, value in globals().items() if inspect.isfunction(value) and not name.startswith("_")]
    return [function for function in functions if list(inspect.signature(function).parameters) == ["folder"]]


def main() -> None:
    torch.set_num_threads(1)
    told: dict[str, str | None] = {}
    for statement in statements():
        folder = Path(sys.argv[1]) / statement.__name__
        folder.mkdir(parents=True, exist_ok=True)
        try:
            statement(folder)
            told[statement.__name__] = None
        except Exception:  # whatever it is, the test that reads this fails with it
            told[statement.__name__] = traceback.format_exc()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
