"""Turns a recipe and a run's settings into MMEngine's configuration of the model and its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.methods.mmdet.pretrained import prefix
from segbench.methods.mmdet.zoo import Recipe
from segbench.methods.planes import Normalisation

_FIRST_SCALES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
"""SOLOv2's published sizes in pixels, for photographs of 800 px."""

OWN_TYPES: Mapping[str, str] = {
    "SingleRoIExtractor": "Float32RoIExtractor",
    "Mask2FormerHead": "Float32Mask2FormerHead",
    "MaskFormerFusionHead": "CellFusionHead",
    "RPNHead": "CellRPNHead",
    "StandardRoIHead": "CellStandardRoIHead",
    "MaskScoringRoIHead": "CellMaskScoringRoIHead",
    "CascadeRoIHead": "CellCascadeRoIHead",
    "Shared2FCBBoxHead": "CellShared2FCBBoxHead",
    "Shared4Conv1FCBBoxHead": "CellShared4Conv1FCBBoxHead",
    "DeltaXYWHBBoxCoder": "CellBoxCoder",
    "SeesawLoss": "CellSeesawLoss",
    "FCNMaskHead": "CellMaskHead",
    "MaskIoUHead": "CellMaskIoUHead",
    "SOLOV2Head": "CellSOLOV2Head",
    "RTMDetInsSepBNHead": "CellRTMDetInsHead",
}
"""Upstream's parts and those of _heads.py that stand in their place, with the same parameters."""


@dataclass(frozen=True)
class Training:
    """The size of a training, as its schedule needs it."""

    epochs: int
    steps_per_epoch: int
    batch_size: int
    """Over all processes."""


def build_config(
    recipe: Recipe, settings: Mapping[str, Any], normalisation: Normalisation, training: Training | None = None, *,
    weights: Path | None = None, sync_norm: bool = False, precision: str = "float32", fused: bool = False,
) -> Any:  # fmt: skip
    """Return the ``mmengine.Config`` with ``model`` and, for a training, ``optim_wrapper`` and ``param_scheduler``.

    Parameters
    ----------
    recipe, settings
        The method's row of the table and the run's complete settings.
    normalisation
        Of the prepared windows.
    training
        None to predict only.
    weights
        A file with the backbone's weights; None for random ones.
    sync_norm
        True to compute batch statistics over all processes.
    precision
        Of the training: one of ``segbench.methods.card.PRECISIONS``.
    fused
        True to let the optimiser take all parameters in one kernel, as GPUs want it.

    Raises
    ------
    SegbenchError
        For an option that the configuration cannot take.
    """
    import mmdet
    from mmengine.config import Config

    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    model = Config.fromfile(folder / recipe.config).model
    _for_cells(model, settings, sync_norm)
    backbone = model.backbone
    backbone.init_cfg = None
    if weights is not None:
        backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(weights), "prefix": prefix(weights, recipe)}
    model.data_preprocessor = {
        "type": "CellPreprocessor", "mean": normalisation.mean, "std": normalisation.std, "bgr_to_rgb": False,
        "pad_mask": True, "pad_size_divisor": 32, "batch_augments": None,
    }  # fmt: skip
    config = Config({"model": model})
    if training is not None:
        config.optim_wrapper = _optimiser(recipe, settings, training, weights is not None)
        config.optim_wrapper.precision = precision
        config.optim_wrapper.optimizer.fused = fused
        config.param_scheduler = _schedule(recipe, settings, training)
    try:
        config.merge_from_dict(dict(settings["options"]))
    except (KeyError, TypeError, AssertionError, AttributeError) as error:
        raise SegbenchError(
            f"setting options {dict(settings['options'])!r} does not fit MMEngine's configuration: {error}"
        ) from error
    return config


def scaled_rate(settings: Mapping[str, Any], batch_size: int) -> float:
    """Return the learning rate for a batch: proportional to it for SGD, to its square root for AdamW.

    Examples
    --------
    >>> scaled_rate({"optimizer": "SGD", "learning_rate": 0.02, "learning_rate_batch": 32}, 8)
    0.005
    >>> scaled_rate({"optimizer": "AdamW", "learning_rate": 0.0001, "learning_rate_batch": 32}, 8)
    5e-05
    """
    share = batch_size / settings["learning_rate_batch"]
    return float(settings["learning_rate"] * (share if settings["optimizer"] == "SGD" else share**0.5))


def _for_cells(model: Any, settings: Mapping[str, Any], sync_norm: bool) -> None:
    """Change a published model to one class, trained from scratch, with room for many small objects."""
    for part in _parts(model):
        if part.get("type") in OWN_TYPES:
            part["type"] = OWN_TYPES[part["type"]]
        if "num_classes" in part:
            part["num_classes"] = 1
        if part.get("type") in ("SyncBN", "MMSyncBN", "BN"):
            part["type"], part["requires_grad"] = "SyncBN" if sync_norm else "BN", True
        if part.get("type") in ("ResNet", "Res2Net", "HRNet"):
            part["norm_eval"] = False
            part["norm_cfg"] = {"type": "SyncBN" if sync_norm else "BN", "requires_grad": True}
        if "frozen_stages" in part or part.get("type") in ("ResNet", "Res2Net"):
            part["frozen_stages"] = -1
    if "rpn_head" in model:
        _two_stages(model, settings)
    elif "panoptic_head" in model:
        _queries(model, settings)
    elif "bbox_head" in model:
        _points(model, settings)
    else:
        _grids(model, settings)


def _two_stages(model: Any, settings: Mapping[str, Any]) -> None:
    model.rpn_head.anchor_generator.scales = [settings["anchor_scale"]]
    stages = model.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.num = settings["rois"]
    model.test_cfg.rpn.update(nms_pre=settings["proposals"], max_per_img=settings["proposals"])
    model.test_cfg.rcnn.update(score_thr=settings["score_threshold"], max_per_img=settings["max_detections"])
    model.test_cfg.rcnn.nms.iou_threshold = settings["nms_iou"]


def _queries(model: Any, settings: Mapping[str, Any]) -> None:
    head = model.panoptic_head
    head.num_queries = settings["queries"]
    for part in (head, model.panoptic_fusion_head):
        part.num_things_classes, part.num_stuff_classes = 1, 0
    head.loss_cls.class_weight = [1.0, 0.1]
    model.test_cfg.update(max_per_image=settings["queries"], panoptic_on=False, instance_on=True)


def _grids(model: Any, settings: Mapping[str, Any]) -> None:
    divisor = settings["scale_divisor"]
    model.mask_head.scale_ranges = [(max(1, low // divisor), high // divisor) for low, high in _FIRST_SCALES]
    model.test_cfg.update(
        nms_pre=settings["candidates"], max_per_img=settings["max_detections"], score_thr=settings["score_threshold"]
    )


def _points(model: Any, settings: Mapping[str, Any]) -> None:
    model.test_cfg.update(
        nms_pre=settings["candidates"], max_per_img=settings["max_detections"], score_thr=settings["score_threshold"]
    )
    model.test_cfg.nms.iou_threshold = settings["nms_iou"]


def _optimiser(recipe: Recipe, settings: Mapping[str, Any], training: Training, pretrained: bool) -> dict[str, Any]:
    name = settings["optimizer"]
    if name not in ("SGD", "AdamW"):
        raise SegbenchError(f"setting optimizer is {name!r}; it must be SGD or AdamW")
    optimizer = {
        "type": name,
        "lr": scaled_rate(settings, training.batch_size),
        "weight_decay": settings["weight_decay"],
    }
    if name == "SGD":
        optimizer["momentum"] = settings.get("momentum", 0.9)
    decay: dict[str, dict[str, float]] = {key: dict(value) for key, value in recipe.decay.items()}
    if "backbone_rate" in settings:
        chosen = settings["backbone_rate"]
        decay["backbone"] = {"lr_mult": (0.1 if pretrained else 1.0) if chosen == "auto" else float(chosen)}
    parts: dict[str, Any] = {"custom_keys": decay}
    if recipe.norm_decay is not None:
        parts["norm_decay_mult"] = recipe.norm_decay
    if recipe.bias_decay is not None:
        parts |= {"bias_decay_mult": recipe.bias_decay, "bypass_duplicate": True}
    return {
        "type": "AutocastOptimWrapper",
        "constructor": "FewGroupsConstructor",
        "optimizer": optimizer,
        "clip_grad": {"max_norm": settings["clip_norm"], "norm_type": 2},
        "paramwise_cfg": parts,
    }


def _schedule(recipe: Recipe, settings: Mapping[str, Any], training: Training) -> list[dict[str, Any]]:
    """Return a warm-up and falls of the rate, all by step, so that a short training has the same shape."""
    steps = training.epochs * training.steps_per_epoch
    warmup = min(settings["warmup_steps"], steps // 10)
    schedule = []
    if warmup > 1:
        schedule.append(
            {"type": "LinearLR", "start_factor": recipe.warmup_from, "by_epoch": False, "begin": 0, "end": warmup}
        )
    if "cosine_from" in settings:
        first = min(steps - 1, round(settings["cosine_from"] * steps))
        rate = scaled_rate(settings, training.batch_size)
        schedule.append(
            {
                "type": "CosineAnnealingLR", "eta_min": recipe.last_rate * rate, "by_epoch": False, "begin": first,
                "end": steps, "T_max": steps - first,
            }
        )  # fmt: skip
        return schedule
    falls = sorted({max(1, round(part * steps)) for part in settings["learning_rate_steps"]})
    schedule.append({"type": "MultiStepLR", "by_epoch": False, "milestones": falls, "gamma": 0.1})
    return schedule


def _parts(config: Any) -> Iterator[Any]:
    """Yield every dictionary of a nested configuration."""
    if isinstance(config, dict):
        yield config
        for each in list(config.values()):
            yield from _parts(each)
    elif isinstance(config, list | tuple):
        for each in config:
            yield from _parts(each)
