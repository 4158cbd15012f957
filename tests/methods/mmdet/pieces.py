"""Checks in the torch environment of the family's small parts, the caps of each method, and backbones' weights."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from checking import refusal
from narrow_networks import narrow

import segbench.methods.mmdet as family
from segbench.errors import SegbenchError
from segbench.methods import Arrays, Budget, Checkpoints, Job, Progress, Task
from segbench.methods.base import DivergedError
from segbench.methods.mmdet.config import Training, build_config
from segbench.methods.mmdet.pretrained import find_weights
from segbench.methods.mmdet.zoo import RECIPES
from segbench.methods.planes import Normalisation

METHODS: dict[str, Any] = {
    kind.card.name: kind
    for kind in vars(family).values()
    if isinstance(kind, type) and getattr(kind, "card", None) is not None
}
SEEN = Normalisation((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def job_in(folder: Path, **settings: Any) -> Job:
    """A job of one method that is not run, to import the library with."""
    return Job(
        run_id="pieces",
        method="",
        task=Task("t", "d", ("nuclear",), "nuclear"),
        budget=Budget(2, epochs=1),
        seed=3,
        output=str(folder),
        settings=settings,
    )


METHODS["mask-rcnn"]().import_library(job_in(Path()))

from segbench.methods.mmdet import _modules as modules  # noqa: E402 - after the operators' stand-in


def check_a_window_comes_in_four_orientations_with_boxes_and_masks_that_fit() -> None:
    labels = np.zeros((1, 8, 10), np.int32)
    labels[0, 1:4, 2:7], labels[0, 6:, 9:] = 5, 9
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", labels[:, None].astype(np.float32))
        np.save(f"{folder}/y.npy", labels)
        arrays = Arrays(f"{folder}/x.npy", (0,), None, f"{folder}/y.npy")
        windows = modules.CellWindows(dataclasses.asdict(arrays), [0])
        assert len(windows) == 4 * modules.PLACES
        images = []
        for n in range(4):
            got = windows[modules.view_number(0, n, 17)]
            masks, image = modules.CellMasks(got["labels"]).masks, got["inputs"]
            images.append(image[0].numpy())
            for box, mask in zip(got["boxes"].numpy().astype(int), masks, strict=True):
                x1, y1, x2, y2 = box
                assert mask[y1:y2, x1:x2].sum() == mask.sum()
                assert (mask[y1:y2, x1:x2] == 1).all()
                assert len(np.unique(image[0].numpy()[mask > 0])) == 1
            assert sorted(masks.sum((1, 2)).tolist()) == [2, 15]
            assert got["labels"].max() == 2  # numbered
    plain = labels[0].astype(np.float32)
    for n, turned in enumerate((plain, plain[:, ::-1], plain[::-1], plain[::-1, ::-1])):
        assert np.array_equal(images[n], turned)


def check_a_crop_is_cut_around_a_cell() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2, 3] = labels[10, 28] = 1
    image = np.arange(600, dtype=np.float32).reshape(1, 20, 30)
    for where, corner in ((0.0, 0), (0.4999, 0), (0.5, 6 * 30 + 22), (0.9999, 6 * 30 + 22)):
        part, cells = modules.cut_around_a_cell(image, labels, 8, where)
        assert part.shape == (1, 8, 8)
        assert part[0, 0, 0] == corner
        assert cells.sum() == 1
    whole, _ = modules.cut_around_a_cell(image, labels, 64, 0.5)
    assert whole.shape == image.shape


def check_processes_share_the_windows_that_one_process_would_draw() -> None:
    dataset = mock.MagicMock()
    dataset.n_windows = 10

    def drawn(rank: int, world: int, epoch: int, done: int = 0) -> Any:
        with mock.patch.object(modules, "get_dist_info", return_value=(rank, world)):
            sampler = modules.CellSampler(dataset, batch_size=4, seed=7, flips=True)
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
        sampler.resume(epoch, done)
        return np.array(list(sampler)).reshape(-1, 4 // world)

    alone = drawn(0, 1, 2)
    assert alone.shape == (3, 4)
    views = alone.ravel() // modules.PLACES
    assert set((views // 4)[:10]) == set(range(10))  # each window once, then a fill of the last step
    assert len(set(views % 4)) == 4
    assert not np.array_equal(alone, drawn(0, 1, 3))
    assert np.array_equal(np.concatenate([drawn(0, 2, 2), drawn(1, 2, 2)], axis=1), alone)
    assert np.array_equal(drawn(0, 1, 2, done=2), alone[2:])


def check_no_method_is_capped_below_3000_instances_but_mask2former_at_its_queries() -> None:
    for name, kind in METHODS.items():
        card = kind.card
        model = build_config(RECIPES[name], card.defaults, SEEN).model
        if name == "mask2former":
            assert model.test_cfg.max_per_image == model.panoptic_head.num_queries == card.defaults["queries"] == 1000
        elif name == "solov2":
            assert model.test_cfg.max_per_img >= 3000
            assert model.test_cfg.nms_pre >= 3000
            assert sum(n * n for n in model.mask_head.num_grids) >= 3000
        elif name == "rtmdet-ins":
            assert model.test_cfg.max_per_img >= 3000
            assert model.test_cfg.nms_pre >= 3000
        else:
            assert model.test_cfg.rcnn.max_per_img >= 3000
            assert model.test_cfg.rpn.max_per_img >= 3000
            assert model.test_cfg.rpn.nms_pre >= 3000


def check_400_boxes_of_the_first_stage_come_out_as_400_instances() -> None:
    from mmdet.registry import MODELS
    from mmengine.structures import InstanceData

    settings = {**METHODS["mask-rcnn"].card.defaults, "options": narrow("mask-rcnn")}
    model = MODELS.build(build_config(RECIPES["mask-rcnn"], settings, SEEN).model)
    model.init_weights()
    head = model.roi_head.bbox_head
    torch.nn.init.zeros_(head.fc_reg.weight)  # the boxes stay as they are
    torch.nn.init.zeros_(head.fc_reg.bias)
    head.fc_cls.bias.data = torch.tensor([3.0, 0.0])  # and each is a cell
    model.eval()
    corners = torch.cartesian_prod(torch.arange(20), torch.arange(20)).float() * 12.8
    given = InstanceData(
        bboxes=torch.cat([corners, corners + 11], 1), scores=torch.ones(400), labels=torch.zeros(400, dtype=torch.long)
    )
    window = modules.sample(np.random.default_rng(0).random((1, 256, 256), np.float32), None, 0)
    data = model.data_preprocessor(modules.collate([window]))
    with torch.no_grad():
        features = model.extract_feat(data["inputs"])
        found = model.roi_head.predict(features, [given], data["data_samples"], rescale=True)[0]
    assert len(found.masks) == 400


def check_mask2former_has_the_losses_of_single_precision_in_half() -> None:
    from mmdet.registry import MODELS
    from mmengine.structures import InstanceData

    settings = {**METHODS["mask2former"].card.defaults, "queries": 20}
    config = build_config(RECIPES["mask2former"], settings, SEEN).model
    head = MODELS.build({**config.panoptic_head, "train_cfg": config.train_cfg, "test_cfg": config.test_cfg})
    assert head.num_points == 12544
    torch.manual_seed(0)
    # nine cells: upstream's number of points times masks is infinite in half precision from six on
    masks = torch.zeros(9, 48, 48)
    for n in range(9):
        masks[n, 16 * (n // 3) + 2 : 16 * (n // 3) + 13, 16 * (n % 3) + 2 : 16 * (n % 3) + 13] = 1
    truth = [InstanceData(labels=torch.zeros(9, dtype=torch.long), masks=masks)]
    scores, predicted = torch.randn(2, 1, 20, 2), torch.randn(2, 1, 20, 12, 12)

    def losses(half: bool) -> dict[str, float]:
        torch.manual_seed(1)
        kind = torch.float16 if half else torch.float32
        inputs = [one.clone().to(kind).requires_grad_() for one in (scores, predicted)]
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            found = head.loss_by_feat(*inputs, truth, [{"img_shape": (48, 48)}])
        sum(found.values()).backward()
        assert all(one.grad.isfinite().all() for one in inputs)
        return {name: float(value) for name, value in found.items()}

    whole, half = losses(False), losses(True)
    for name, loss in whole.items():
        assert abs(half[name] - loss) <= 0.01 + 0.01 * abs(loss), (name, loss, half[name])


def check_steps_that_the_scaler_skips_are_no_divergence_until_there_are_too_many() -> None:
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Overflowing(BaseModel):  # type: ignore[misc]
        def __init__(self, overflows: int) -> None:
            super().__init__()
            self.weight, self.left = torch.nn.Parameter(torch.ones(1)), overflows

        def forward(self, inputs: Any, mode: str) -> Any:  # noqa: ARG002
            self.left -= 1
            return {"loss": (self.weight * (torch.inf if self.left >= 0 else 2)).sum()}

    def trained(overflows: int) -> tuple[Any, Progress]:
        progress, model = Progress(Path(os.devnull)), Overflowing(overflows)
        with tempfile.TemporaryDirectory() as folder:
            runner = Runner(
                model=model,
                work_dir=folder,
                train_dataloader=torch.utils.data.DataLoader([{"inputs": torch.zeros(1)}] * (overflows + 2)),
                train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": 1},
                optim_wrapper={
                    "type": "AutocastOptimWrapper",
                    "precision": "float16",
                    "optimizer": {"type": "SGD", "lr": 0.25},
                },
                default_hooks=dict.fromkeys(("logger", "checkpoint", "timer")),
                log_level="WARNING",
                default_scope="mmdet",
                experiment_name=f"overflowing-{overflows}",
            )
            runner.register_hook(modules.WatchHook(progress, Checkpoints(None), 0, lambda _: None))
            runner.train()
        return model, progress

    model, progress = trained(overflows=3)
    # the weight moved in the two steps after them alone
    assert [point["loss"] for point in progress.history] == [2.0, 1.0], progress.history
    assert model.weight.item() == 0
    said = refusal(lambda: trained(overflows=60), DivergedError)
    assert said == "the gradients of 41 steps in a row, up to step 41, are not finite at any scale", said


def check_the_schedule_keeps_its_shape_for_any_length() -> None:
    card = METHODS["mask-rcnn"].card
    for epochs in (1, 100):
        config = build_config(RECIPES["mask-rcnn"], card.defaults, SEEN, Training(epochs, 100, 24))
        steps = 100 * epochs
        assert config.param_scheduler[-1]["milestones"] == [0.88 * steps, 0.96 * steps]
        assert config.param_scheduler[0]["end"] == min(500, steps // 10)
        assert abs(config.optim_wrapper.optimizer.lr - 0.025) < 1e-12


def check_options_reach_the_configuration_and_a_wrong_one_is_refused() -> None:
    card = METHODS["swin-t"].card
    options = {"model.backbone.depths": [1, 1, 1, 1]}
    assert build_config(RECIPES["swin-t"], {**card.defaults, "options": options}, SEEN).model.backbone.depths == [1] * 4
    wrong = {**card.defaults, "options": {"model.backbone.depths.9": 1}}
    said = refusal(lambda: build_config(RECIPES["swin-t"], wrong, SEEN), SegbenchError, ValueError)
    assert said.startswith("setting options {'model.backbone.depths.9': 1} does not fit")


def check_a_backbone_starts_from_a_local_file_and_wrong_files_are_refused() -> None:
    from mmdet.registry import MODELS

    recipe, settings = RECIPES["ms-rcnn"], METHODS["ms-rcnn"].card.defaults
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        torch.manual_seed(1)
        source = MODELS.build(build_config(recipe, settings, SEEN).model.backbone)
        source.init_weights()
        torch.save(source.state_dict(), folder / "r50.pth")
        torch.save({"layer9.weight": torch.zeros(1)}, folder / "other.pth")
        (folder / "text.pth").write_text("not weights")
        found = find_weights(str(folder / "r50.pth"), recipe, "ms-rcnn")
        torch.manual_seed(2)
        model = MODELS.build(build_config(recipe, settings, SEEN, weights=found).model)
        model.init_weights()
        for key, value in source.state_dict().items():
            assert torch.equal(model.backbone.state_dict()[key], value), key
        # the backbone of a whole detector
        torch.save({"state_dict": {f"backbone.{k}": v for k, v in source.state_dict().items()}}, folder / "whole.pth")
        whole = MODELS.build(build_config(recipe, settings, SEEN, weights=folder / "whole.pth").model)
        whole.init_weights()
        assert torch.equal(whole.backbone.conv1.weight, source.conv1.weight)
        # the published name, in the cache folder
        (folder / "pretrained").mkdir()
        cached = folder / "pretrained" / recipe.imagenet.file
        (folder / "r50.pth").rename(cached)
        own = dataclasses.replace(recipe.imagenet, sha256=hashlib.sha256(cached.read_bytes()).hexdigest())
        with mock.patch.dict("os.environ", {"SEGBENCH_CACHE": str(folder)}):
            assert find_weights("imagenet", dataclasses.replace(recipe, imagenet=own), "ms-rcnn") == cached
            got = refusal(lambda: find_weights("imagenet", recipe, "ms-rcnn"), SegbenchError)
            assert "is not the published file" in got, got
        for name, said in (
            ("other.pth", "is not the weights of its backbone (it has no 'conv1.weight')"),
            ("text.pth", "does not load as plain weights"),
            ("nothing.pth", "there is no file"),
        ):
            got = refusal(lambda name=name: find_weights(str(folder / name), recipe, "ms-rcnn"), SegbenchError)  # type: ignore[misc]
            assert said in got, got
            assert "\n" not in got
