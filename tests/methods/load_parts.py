"""What the tests of loading do in a method's environment: ``python load_parts.py PART FOLDER``; prints JSON last.

Each part gives the windows to upstream as it was done when all of them were held in memory, and as it is done now, and
compares the numbers that upstream then hands on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from segbench.methods.base import ImageStack
from segbench.methods.card import Budget
from segbench.methods.job import Arrays, Job, Task

SIDE = 48


def windows(folder: Path, side: int = SIDE) -> ImageStack:
    """Return five of six windows of two channels: one has no cell, one no ground, in two a plane hardly varies."""
    rng = np.random.default_rng(0)
    images = rng.random((6, 2, side, side)).astype(np.float32)
    labels = np.zeros((6, side, side), np.int32)
    for n in range(5):
        labels[n, 4:14, 4:16], labels[n, 6, 8] = 2, 0  # a hole
        labels[n, 20 : 30 + n, 8:20], labels[n, 26:40, 28:40] = 1, 3
    labels[4, labels[4] == 0] = 4  # no ground
    images[1, 1], images[2, 0] = 0.25, 0.25
    images[2, 0, 0, 0] = 0.2505
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", labels)
    return ImageStack(Arrays(str(folder / "x.npy"), (1, 0), (4, 1, 5, 2, 0), str(folder / "y.npy")))


def job_of(folder: Path, settings: dict[str, Any]) -> Job:
    task = Task("t", "d", ("a", "b"), "nuclear")
    return Job("x", "m:C", task, Budget(batch_size=2, epochs=1), 5, str(folder / "out"), settings=settings)


def stardist(folder: Path) -> dict[str, Any]:
    from segbench.methods.stardist import StarDist, augment
    from segbench.methods.stardist_batches import use_threads

    stack = windows(folder)
    method, job = StarDist(), job_of(folder, {**StarDist.card.defaults, "patch_size": 32})
    method.import_library(job)
    from stardist.models import model2d

    method.load(job, stack, stack)
    eager = method._pairs(stack, range(len(stack)), job.settings)

    def batches(windows: Any) -> Any:
        np.random.seed(3)
        rng = np.random.default_rng(1)
        return model2d.StarDistData2D(
            *windows, batch_size=2, n_rays=8, length=4, patch_size=(32, 32), grid=(2, 2), foreground_prob=0.9,
            augmenter=lambda a, b: augment(a, b, rng),
        )  # fmt: skip

    upstream = batches(eager)
    expected = [array for n in range(4) for array in arrays(upstream[n])]
    same = []
    for workers in (1, 3):
        use_threads(model2d, workers)
        given = [array for batch in batches(method._train) for array in arrays(batch)]
        same.append(all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(given, expected, strict=True)))
    return {"batches": len(expected), "same": all(same)}


def deepcell(folder: Path) -> dict[str, Any]:
    """Compare what the methods give with upstream's iterators over all in memory, with one thread and with three."""
    from skimage.measure import regionprops

    from segbench.methods.deepcell import FeatureNet, Mesmer, RetinaMask
    from segbench.methods.deepcell.base import DeepcellMethod
    from segbench.methods.deepcell.featurenet import _options
    from segbench.methods.deepcell.mesmer import _TRANSFORMS
    from segbench.methods.deepcell.windows import cut

    stack = windows(folder, 80)  # cut into four pieces of 64
    augmentation = {"rotation_range": 180, "zoom_range": (0.7, 1 / 0.7), "horizontal_flip": True, "vertical_flip": True}
    found: dict[str, Any] = {}
    methods: dict[str, DeepcellMethod] = {kind.card.name: kind() for kind in (Mesmer, RetinaMask, FeatureNet)}
    for name, method in methods.items():
        job = job_of(folder, {**method.card.defaults, "workers": 3})
        method.import_library(job)
        tiles = cut(stack, range(5), 64, method.min_objects)
        eager = {"X": np.stack([tiles.x[n] for n in range(len(tiles))]), "y": np.asarray(tiles.y)}
        method._channels = 2
        if isinstance(method, FeatureNet):
            method._options = _options(job)
        method._prepare(tiles)
        if name == "mesmer":
            options = [{"transforms": list(_TRANSFORMS), "transforms_kwargs": _TRANSFORMS, "min_objects": 1}]
        elif name == "retinamask":
            utils = method._anchor_utils  # type: ignore[attr-defined]
            utils.regionprops = regionprops
            _, levels, anchors = utils.get_anchor_parameters(eager["y"])
            ours = vars(method._anchors)  # type: ignore[attr-defined]
            assert {key: list(value) for key, value in vars(anchors).items()} == {k: list(v) for k, v in ours.items()}
            options = [{"include_bbox": True, "include_masks": True, "pyramid_levels": levels, "anchor_params": anchors,
                        "min_objects": 3}]  # fmt: skip
        else:
            augmentation["zoom_range"] = (0.8, 1.2)
            options = [
                {"transform": "fgbg", "transform_kwargs": {}, "skip": 1},
                {"transform": "pixelwise", "transform_kwargs": {"dilation_radius": 1, "separate_edge_classes": True},
                 "skip": 1},
            ]  # fmt: skip
        stages = method._build_stages(job, 64, tiles, tiles)
        for stage, each in zip(stages, options, strict=True):
            flow = {**each, "batch_size": 2}
            before = method._generator(**augmentation).flow(eager, seed=5, shuffle=True, **flow)  # type: ignore[attr-defined]
            flow = {**flow, "min_objects": 1} if "min_objects" in flow else flow
            held = method._generator().flow(eager, shuffle=False, **flow)  # type: ignore[attr-defined]
            assert stage.val is not None
            expected = [next(before) for _ in range(6)], [held[number] for number in range(2)]
            same = []
            for workers in (1, 3):
                stage.train.workers = stage.val.workers = workers
                given = [*stage.train.take(4), *stage.train.take(2)], list(stage.val.in_order(2))
                stage.train.rewind()
                for ours, theirs in zip(given, expected, strict=True):
                    a, b = ([array for batch in some for array in arrays(whole(batch))] for some in (ours, theirs))
                    same.append(all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True)))
            key = f"{name}-{each['transform']}" if "transform" in each else name
            found[key] = {"pieces": stage.train.n, "of": len(tiles), "same": all(same) and stage.train.n == before.n}
    return found


def whole(batch: Any) -> Any:
    """Return a batch with RetinaMask's masks as its loss takes them."""
    if isinstance(batch[1], dict) and batch[1]["masks"].shape[-1] == 8:
        import tensorflow

        from segbench.methods.deepcell.boxes import expand_masks

        side = batch[0]["input"].shape[1]
        return batch[0], {**batch[1], "masks": expand_masks(tensorflow, batch[1]["masks"], side).numpy()}
    return batch


def torch(folder: Path) -> dict[str, Any]:
    """Return what MMDetection's and detectron2's workers give, and whether it is what one process gives."""
    import pickle

    from segbench.methods.detectron2 import ResNeSt
    from segbench.methods.mmdet import MaskRCNN

    stack = windows(folder)
    MaskRCNN().import_library(job_of(folder, dict(MaskRCNN.card.defaults)))
    ResNeSt().import_library(job_of(folder, dict(ResNeSt.card.defaults)))
    from mmdet.structures.mask import BitmapMasks
    from torch import device
    from torch.utils.data import DataLoader

    from segbench.methods.detectron2._data import train_loader, training_inputs
    from segbench.methods.mmdet import _modules as modules

    labels = stack.labels(1)[::-1]
    whole = np.asarray(labels[np.newaxis] == np.array([1, 2, 3])[:, np.newaxis, np.newaxis], np.uint8)
    before, now = BitmapMasks(whole, SIDE, SIDE), modules.CellMasks(labels)
    sent = pickle.dumps(now)
    received = pickle.loads(sent)
    boxes = modules.boxes_of(labels)
    there = [(m.any(0).nonzero()[0], m.any(1).nonzero()[0]) for m in whole]
    found: dict[str, Any] = {
        "masks": all(np.array_equal(one.masks, whole) and one.masks.dtype == np.uint8 for one in (now, received)),
        "padded": np.array_equal(received.pad((64, 64)).masks, before.pad((64, 64)).masks),
        "boxes": boxes.tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1] for x, y in there],
        "no_cell": [modules.boxes_of(0 * labels).shape, modules.CellMasks(0 * labels).masks.shape],
        "sent": len(sent) < 1.1 * labels.nbytes + 500,
    }
    dataset = modules.CellWindows(vars(stack.arrays), [0, 1, 3])
    views = [modules.view_number(window, turned, 0) for window, turned in ((0, 0), (1, 3), (2, 1))]
    batches = []
    for workers in (0, 1):
        loader = DataLoader(dataset, sampler=views, batch_size=3, num_workers=workers, collate_fn=modules.collate)
        batch = next(iter(loader))
        batches.append([*(batch[key].numpy() for key in ("inputs", "labels", "boxes")), np.array(batch["counts"])])
    found["mmdet_workers"] = all(map(np.array_equal, *batches))
    # with one scale and no mirror nothing of detectron2's is drawn by chance but the order
    settings = {**ResNeSt.card.defaults, "train_scales": (1.0,), "flip": 0.0}
    given = []
    for workers in (0, 1):
        loader = train_loader(stack, [0, 1, 3], settings, batch_size=2, seed=1, done=0, workers=workers)
        batch = training_inputs(next(iter(loader)), device("cpu"))
        given.append(
            [part for one in batch for part in (one["image"].numpy(), one["instances"].gt_boxes.tensor.numpy())]
        )
    found["detectron2_workers"] = all(map(np.array_equal, *given))
    return found


def arrays(batch: Any) -> list[Any]:
    if isinstance(batch, dict):
        return [array for name in sorted(batch) for array in arrays(batch[name])]
    return [array for part in batch for array in arrays(part)] if isinstance(batch, list | tuple) else [batch]


if __name__ == "__main__":
    part = {"stardist": stardist, "deepcell": deepcell, "torch": torch}[sys.argv[1]]
    sys.stdout.write(json.dumps(part(Path(sys.argv[2]))) + "\n")
