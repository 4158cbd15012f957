"""Narrow and shallow forms of the published networks: every part of a method is there, each with fewer channels."""

from __future__ import annotations

from typing import Any

CASCADES = ("cascade-mask-rcnn-seesaw", "hrnet", "res2net", "rf-next")
RESNET = {"model.backbone.depth": 18, "model.neck.in_channels": [64, 128, 256, 512]}


def narrow(name: str, width: int = 32) -> dict[str, Any]:
    """Return the options of MMEngine's configuration that make a method's network narrow, for its setting ``options``.

    Parameters
    ----------
    width
        Channels of the pyramid and of all heads, a multiple of 32.
    """
    if name == "mask2former":
        return _queries(width)
    if name == "solov2":
        return _grids(width)
    if name == "rtmdet-ins":
        return _points(width)
    return {**_BACKBONES[name], **_two_stages(name, width)}


def _two_stages(name: str, width: int) -> dict[str, Any]:
    heads = [f"bbox_head.{n}" for n in range(3)] if name in CASCADES else ["bbox_head"]
    options = {
        "neck.out_channels": width,
        "rpn_head.in_channels": width,
        "rpn_head.feat_channels": width,
        "roi_head.bbox_roi_extractor.out_channels": width,
        "roi_head.mask_roi_extractor.out_channels": width,
        "roi_head.mask_head.in_channels": width,
        "roi_head.mask_head.conv_out_channels": width,
    }
    for head in heads:
        options |= {f"roi_head.{head}.in_channels": width, f"roi_head.{head}.fc_out_channels": 4 * width}
    if name == "mask-rcnn":
        options |= {"roi_head.bbox_head.conv_out_channels": width}
    if name == "ms-rcnn":
        iou = "roi_head.mask_iou_head"
        options |= {f"{iou}.in_channels": width, f"{iou}.conv_out_channels": width, f"{iou}.fc_out_channels": 4 * width}
    return {f"model.{key}": value for key, value in options.items()}


def _queries(width: int) -> dict[str, Any]:
    encoder, decoder = "pixel_decoder.encoder", "transformer_decoder"
    options = {
        "in_channels": [64, 128, 256, 512],
        "feat_channels": width,
        "out_channels": width,
        "positional_encoding.num_feats": width // 2,
        "pixel_decoder.positional_encoding.num_feats": width // 2,
        f"{encoder}.num_layers": 2,
        f"{encoder}.layer_cfg.self_attn_cfg.embed_dims": width,
        f"{encoder}.layer_cfg.ffn_cfg.embed_dims": width,
        f"{encoder}.layer_cfg.ffn_cfg.feedforward_channels": 2 * width,
        f"{decoder}.num_layers": 3,
        f"{decoder}.layer_cfg.self_attn_cfg.embed_dims": width,
        f"{decoder}.layer_cfg.cross_attn_cfg.embed_dims": width,
        f"{decoder}.layer_cfg.ffn_cfg.embed_dims": width,
        f"{decoder}.layer_cfg.ffn_cfg.feedforward_channels": 4 * width,
    }
    return {"model.backbone.depth": 18, **{f"model.panoptic_head.{key}": value for key, value in options.items()}}


def _grids(width: int) -> dict[str, Any]:
    # grids of as many pixels a step in a window of 64 px as the published ones have in one of 256
    head = {
        "in_channels": width,
        "feat_channels": 2 * width,
        "num_grids": [10, 9, 6, 4, 3],
        "mask_feature_head.feat_channels": width,
        "mask_feature_head.out_channels": width,
    }
    return {**RESNET, "model.neck.out_channels": width, **{f"model.mask_head.{key}": v for key, v in head.items()}}


def _points(width: int) -> dict[str, Any]:
    return {
        "model.backbone.deepen_factor": 0.167,
        "model.backbone.widen_factor": width / 256,
        "model.neck.in_channels": [width, 2 * width, 4 * width],
        "model.neck.out_channels": width,
        "model.neck.num_csp_blocks": 1,
        "model.bbox_head.in_channels": width,
        "model.bbox_head.feat_channels": width,
    }


def _hrnet() -> dict[str, Any]:
    extra, widths = "model.backbone.extra", [8, 16, 32, 64]
    options: dict[str, Any] = {"model.neck.in_channels": widths}
    for stage in (2, 3, 4):
        options[f"{extra}.stage{stage}.num_channels"] = widths[:stage]
        options[f"{extra}.stage{stage}.num_blocks"] = [1] * stage
        options[f"{extra}.stage{stage}.num_modules"] = 1
    return options


_SWIN = {
    "model.backbone.depths": [1, 1, 2, 1],
    "model.backbone.embed_dims": 24,
    "model.backbone.num_heads": [1, 2, 4, 8],
    "model.neck.in_channels": [24, 48, 96, 192],
}
_RES2NET = {
    "model.backbone.depth": 50,
    "model.backbone.base_channels": 16,
    "model.backbone.stem_channels": 16,
    "model.backbone.base_width": 6,
    "model.neck.in_channels": [64, 128, 256, 512],
}
_BACKBONES: dict[str, dict[str, Any]] = {
    "mask-rcnn": RESNET,
    "ms-rcnn": RESNET,
    "cascade-mask-rcnn-seesaw": RESNET,
    "swin-t": _SWIN,
    "swin-s": {**_SWIN, "model.backbone.depths": [1, 1, 4, 1]},
    "hrnet": _hrnet(),
    "res2net": _RES2NET,
    "rf-next": _RES2NET,
}
