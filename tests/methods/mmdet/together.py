"""Checks in the torch environment that what is computed for a batch at once is what upstream computes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
from checking import refusal
from narrow_networks import narrow
from pieces import METHODS, SEEN

from segbench.methods.mmdet.config import OWN_TYPES, _parts, build_config
from segbench.methods.mmdet.zoo import RECIPES
from segbench.methods.predictions import run_lengths

SIDE = 64

# after pieces, which puts the operators' stand-in in its place
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask  # noqa: E402
from mmdet.models.task_modules.assigners import MaxIoUAssigner  # noqa: E402
from mmdet.models.task_modules.samplers import RandomSampler  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from segbench.methods.mmdet import _assign, _boxes, _graphs, _heads, _prediction, _solov2, _windows  # noqa: E402


def cells(n_windows: int, seed: int) -> np.ndarray[Any, Any]:
    """Draw label maps of 3 to 12 rectangles, one more a window, with gaps among their numbers."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n_windows, SIDE, SIDE), np.int32)
    for n in range(n_windows):
        for cell in range(3 + 3 * n):
            y, x = rng.integers(0, SIDE - 6, 2)
            labels[n, y : y + rng.integers(3, 14), x : x + rng.integers(3, 14)] = 2 * cell + 1
    return labels


def batch(n_windows: int = 3, seed: int = 0) -> dict[str, Any]:
    labels = cells(n_windows, seed)
    noise = np.random.default_rng(seed).normal(0, 0.1, labels.shape)
    images = (np.where(labels > 0, 0.7, 0.2) + noise).astype(np.float32)[:, None]
    return _windows.collate([_windows.sample(images[n], labels[n], n) for n in range(n_windows)])


def boxes(n: int, generator: torch.Generator) -> torch.Tensor:
    corners = torch.randint(0, SIDE - 8, (n, 2), generator=generator).float()
    return torch.cat([corners, corners + torch.randint(4, 20, (n, 2), generator=generator)], 1)


def check_boxes_are_assigned_and_drawn_as_upstream_does_it() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = [InstanceData(bboxes=boxes(k, generator), labels=torch.zeros(k, dtype=torch.long)) for k in (7, 1, 0, 20)]
    given = [boxes(n, generator) for n in (300, 40, 30, 200)]
    low = 0
    for match_low_quality in (True, False):
        assigner = MaxIoUAssigner(0.6, 0.3, 0.2, match_low_quality=match_low_quality)
        sampler = RandomSampler(60, 0.25)
        assert _assign.is_known(assigner, sampler)
        torch.manual_seed(3)
        expected = []
        for mine, priors in zip(truth, given, strict=True):
            found = assigner.assign(InstanceData(priors=priors), mine)
            low += int(((found.gt_inds > 0) & (found.max_overlaps < 0.6)).sum())
            expected.append(sampler.sample(found, InstanceData(priors=priors), mine))
        torch.manual_seed(3)
        got, together = _assign.sample(assigner, sampler, given, truth)
        for one, other in zip(got, expected, strict=True):
            assert vars(one).keys() == vars(other).keys()
            for name, value in vars(other).items():
                mine = getattr(one, name)
                assert torch.equal(mine, value) if isinstance(value, torch.Tensor) else mine == value, name
        everything = torch.cat([one.priors for one in expected])
        assert torch.equal(everything[together.pos_rows], together.pos_priors)
        gone = torch.cat([torch.cat([one.pos_is_gt, torch.zeros(len(one.neg_inds))]) for one in expected])
        assert torch.equal(together.kept_rows, (gone == 0).nonzero()[:, 0])
    assert low > 0  # cells whose best box overlaps them little


def check_many_boxes_are_assigned_in_parts() -> None:
    generator = torch.Generator().manual_seed(1)
    truth, priors = [boxes(k, generator) for k in (5, 9, 2)], [boxes(100, generator)]
    assigner = MaxIoUAssigner(0.6, 0.3, 0.3)
    whole = _assign.assign(assigner, truth, priors)
    before, _assign._PAIRS_TOGETHER = _assign._PAIRS_TOGETHER, 10
    try:
        assert torch.equal(_assign.assign(assigner, truth, priors), whole)
    finally:
        _assign._PAIRS_TOGETHER = before
    assert whole.max() == 9


def check_a_label_map_gives_the_masks_that_bitmaps_give() -> None:
    labels = cells(3, 4)[2]
    present = np.unique(labels)[1:]
    bitmaps = BitmapMasks((labels == present[:, None, None]).astype(np.uint8), SIDE, SIDE)
    ours = _windows.CellMasks(labels)
    assert len(ours) == len(present)
    assert np.array_equal(ours.areas, bitmaps.areas)
    generator = torch.Generator().manual_seed(0)
    some = boxes(50, generator) + torch.rand(50, 4, generator=generator) - 4
    which = torch.randint(0, len(present), (50,), generator=generator)
    cut = bitmaps.crop_and_resize(some.numpy().clip(0, SIDE), (28, 28), which.numpy(), "cpu").masks
    before, _windows._PIXELS_TOGETHER = _windows._PIXELS_TOGETHER, 7 * SIDE * SIDE
    try:
        assert np.array_equal(ours.targets(some, which, (28, 28)).numpy(), cut)
        inside = [
            bitmaps[int(n)].crop(box.numpy().astype(np.int32)).areas[0] for n, box in zip(which, some, strict=True)
        ]
        assert ours.within(some, which).tolist() == inside
    finally:
        _windows._PIXELS_TOGETHER = before
    assert 0 < cut.mean() < 1
    padded = ours.pad((96, 80))
    assert np.array_equal(padded.masks, bitmaps.pad((96, 80)).masks)
    assert torch.equal(padded.to_tensor(torch.bool, "cpu"), bitmaps.pad((96, 80)).to_tensor(torch.bool, "cpu"))


def check_masks_become_the_run_lengths_of_each_without_empty_ones_and_low_scores() -> None:
    masks = torch.from_numpy(cells(1, 5)[0] == np.arange(-1, 6)[:, None, None])
    masks[0, :, -1] = masks[1, 0, 0] = True
    scores = torch.linspace(1, 0.1, len(masks))
    before, _prediction._MASKS_TOGETHER = _prediction._MASKS_TOGETHER, 3
    try:
        found = _prediction.to_instances(masks, scores, 0.3)
    finally:
        _prediction._MASKS_TOGETHER = before
    kept = [n for n in range(len(masks)) if masks[n].any() and scores[n] >= 0.3]
    assert 0 < len(kept) < len(masks) - 1
    assert np.array_equal(found.scores, scores.double().numpy()[kept])
    for counts, n in zip(found.counts, kept, strict=True):
        assert np.array_equal(counts, run_lengths(masks[n].numpy()))
        assert counts.dtype == np.uint32
    assert _prediction.to_instances(masks[:0], scores[:0], 0.3).counts == []
    assert _prediction.to_instances(torch.zeros(2, 4, 4), torch.ones(2), 0.3).counts == []


def check_masks_are_pasted_as_upstream_pastes_them_on_a_gpu() -> None:
    generator = torch.Generator().manual_seed(0)
    some = boxes(9, generator) - 3.3
    some[4, 2:] = some[4, :2]  # without an area
    masks = torch.rand(9, 1, 28, 28, generator=generator)
    expected, _ = _do_paste_mask(masks, some, SIDE, 48, skip_empty=False)
    assert torch.equal(_heads.paste(masks, some, (SIDE, 48)).nan_to_num(), expected.nan_to_num())


def check_boxes_of_all_levels_and_of_none_have_the_features_that_upstream_gives_them() -> None:
    layer = {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0}
    about = {"roi_layer": layer, "out_channels": 8, "featmap_strides": [4, 8, 16]}
    ours, theirs = (MODELS.build({"type": kind, **about}) for kind in ("Float32RoIExtractor", "SingleRoIExtractor"))
    generator = torch.Generator().manual_seed(0)
    for largest, none in ((250.0, 3), (250.0, 0), (20.0, 0), (1.0, 40)):
        corners = 4 * boxes(40, generator)
        corners[:, 2:] = corners[:, :2] + torch.rand(40, 2, generator=generator) * largest
        corners[:none, 2] = corners[:none, 0] - 5
        rois = torch.cat([torch.arange(40)[:, None] % 2, corners], 1)
        seen = []
        for extractor in (ours, theirs):
            feats = [
                torch.rand(2, 8, 256 // n, 256 // n, generator=torch.Generator().manual_seed(n)).requires_grad_()
                for n in (4, 8, 16)
            ]
            pooled = extractor(tuple(feats), rois)
            (pooled * torch.arange(40)[:, None, None, None]).sum().backward()
            seen.append([pooled.detach(), *(each.grad for each in feats)])
        for one, other in zip(*seen, strict=True):
            assert torch.allclose(one, other, atol=1e-4), (largest, none)


def check_all_boxes_at_once_are_suppressed_as_one_after_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    some = torch.stack([boxes(400, generator) / 3 for _ in range(3)])  # dense: long chains of boxes that remove others
    valid = torch.rand(3, 400, generator=generator) > 0.1
    for threshold in (0.1, 0.5, 0.7):
        one_by_one = _boxes.suppress(some, valid, threshold)
        assert torch.equal(_boxes._in_rounds(some, valid, threshold), one_by_one)
        assert 3 < one_by_one.sum() < 1100
    same = some[:, :1].expand(-1, 50, -1)
    assert _boxes._in_rounds(same, valid[:, :50], 0.5).sum(1).tolist() == [1, 1, 1]


def check_what_another_thread_computes_comes_in_order_and_so_do_its_errors() -> None:
    begun = []

    def items() -> Any:
        yield from range(5)
        raise MemoryError("full")

    taken = []
    try:
        for item in _prediction.ahead(items(), 3, lambda: begun.append(True)):
            taken.append(item)
    except MemoryError as error:
        taken.append(str(error))
    assert (taken, begun) == ([0, 1, 2, 3, 4, "full"], [True])
    several = _prediction.ahead(iter(range(100)), 3, lambda: None)
    assert next(several) == 0
    several.close()


def models(name: str) -> tuple[Any, Any]:
    """Return the narrow network of a method as it is built here and with upstream's parts, with the same weights."""
    card = METHODS[name].card
    few = {key: value for key, value in {"proposals": 200, "rois": 32, "queries": 20}.items() if key in card.settings}
    options = narrow(name) | ({"model.train_cfg.rpn.allowed_border": -1} if "rois" in card.settings else {})
    settings = {**card.defaults, **card.check_settings, **few, "score_threshold": 0.0, "options": options}
    config = build_config(RECIPES[name], settings, SEEN).model
    upstream = build_config(RECIPES[name], settings, SEEN).model
    theirs = {own: plain for plain, own in OWN_TYPES.items()}
    for part in _parts(upstream):
        if part.get("type") in theirs:
            part["type"] = theirs[part["type"]]
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    plain = MODELS.build(upstream)
    plain.load_state_dict(model.state_dict())
    return model, plain


def check_losses_gradients_and_predictions_are_those_of_upstreams_own_parts() -> None:
    for name in ("mask-rcnn", "ms-rcnn", "cascade-mask-rcnn-seesaw", "hrnet", "solov2", "mask2former", "rtmdet-ins"):
        seen = []
        for model in models(name):
            torch.manual_seed(5)
            # Mask2Former draws the points of all layers' costs before those of their losses
            with mock.patch("torch.rand", the_same_of_a_shape) if name == "mask2former" else nullcontext():
                losses = model.train()(**model.data_preprocessor(batch(), True), mode="loss")
            total, told = model.parse_losses(losses)
            total.backward()
            grads = {key: value.grad for key, value in model.named_parameters()}
            with torch.no_grad():
                found = [one.pred_instances for one in model.eval().test_step(batch(2, 7))]
            seen.append((told, grads, found))
        (told, grads, found), (told_up, grads_up, found_up) = seen
        assert list(told) == list(told_up)
        assert all(torch.allclose(value, told_up[key], rtol=1e-5) for key, value in told.items()), (name, told, told_up)
        assert len(told) > 2
        for key, value in grads_up.items():
            assert (value is None) == (grads[key] is None), (name, key)
            if value is not None:
                assert torch.allclose(grads[key], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()) + 1e-6), key
        for one, other in zip(found, found_up, strict=True):
            assert len(one) == len(other), name
            assert len(one) or name == "solov2"  # which finds nothing before it has learnt
            assert torch.allclose(one.scores, other.scores, atol=1e-6), name
            assert torch.equal(one.masks, other.masks), name


DRAW = torch.rand


def the_same_of_a_shape(*size: Any, device: Any = None) -> torch.Tensor:
    shape = size[0] if isinstance(size[0], tuple) else size
    return DRAW(shape, generator=torch.Generator().manual_seed(shape[-2]), device=device)


def check_masks_are_made_smaller_as_opencv_makes_them() -> None:
    import mmcv

    for labels in (cells(3, 2)[2], np.random.default_rng(0).integers(0, 3, (SIDE, SIDE)).astype(np.int32)):
        ours = _windows.CellMasks(labels)
        expected = np.stack([mmcv.imrescale(mask, scale=1 / 4) for mask in ours.masks])
        assert np.array_equal(_solov2.smaller(ours).numpy(), expected)
        assert 0 < expected.mean() < 1


def check_a_front_of_its_own_gives_the_losses_of_the_whole_and_a_wrong_one_is_noticed() -> None:
    for name in ("mask-rcnn", "solov2", "mask2former"):
        model, _ = models(name)
        told = []
        for wired in (False, True, False):
            if wired:  # as with a CUDA graph, without one
                front = _graphs.Front(model)
                calls: list[int] = []
                front.register_forward_hook(lambda *_, calls=calls: calls.append(1))
                _graphs._use(model, front, (3, 3, SIDE, SIDE))
            torch.manual_seed(5)
            losses = model.train()(**model.data_preprocessor(batch(), True), mode="loss")
            told.append(float(model.parse_losses(losses)[0]))
            if wired:
                assert len(calls) == 1
                with torch.no_grad():
                    model.eval().test_step(batch(2, 7))
                assert len(calls) == 1  # a prediction's windows are others
                for part in (model, model.__dict__.get("rpn_head"), *model.children()):
                    if part is not None:
                        part.__dict__.pop("extract_feat", None)
                        part.__dict__.pop("forward", None)
        assert told[0] == told[1] == told[2], (name, told)
        front = _graphs.Front(model).train()
        windows = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        seen = _graphs._seen(front, windows)
        _graphs._agree(_graphs._seen(front, windows), seen)
        refusal(lambda seen=seen: _graphs._agree([1.2 * each for each in seen], seen), RuntimeError)
        largest = max(range(len(seen)), key=lambda n, seen=seen: float(seen[n].square().sum()))
        lost = [0 * each if n == largest else each for n, each in enumerate(seen)]
        refusal(lambda lost=lost, seen=seen: _graphs._agree(lost, seen), RuntimeError)
