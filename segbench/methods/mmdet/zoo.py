"""The table of the family: each method's card, its MMDetection configuration and what differs from its siblings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from segbench.methods.card import PRECISIONS, Budget, Card, Resources
from segbench.methods.normalisations import NORMALISATION
from segbench.methods.published import SCRIPTS
from segbench.methods.scales import SETTINGS as SCALES
from segbench.methods.setting import Setting, changed
from segbench.methods.start import Start
from segbench.methods.weights import Released, backbone_of

_FOUR_GPUS = "paper and Slurm files: 4 GPUs"

_SWIN_DECAY = {key: {"decay_mult": 0.0} for key in ("absolute_pos_embed", "relative_position_bias_table", "norm")}


@dataclass(frozen=True)
class Recipe:
    """How a method of the family is built, beyond its settings."""

    config: str
    """The configuration in MMDetection's wheel, below its folder of configurations."""
    imagenet: Released | None
    """The ImageNet weights of its backbone; None where upstream's configuration starts from random ones."""
    stem: str
    """A key that such a file must have."""
    decay: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """MMEngine's ``paramwise_cfg.custom_keys``: parts with other weight decay, by a piece of their names."""
    norm_decay: float | None = None
    """MMEngine's ``norm_decay_mult``; None to leave it."""
    bias_decay: float | None = None
    """MMEngine's ``bias_decay_mult``; None to leave it."""
    last_rate: float = 0.0
    """Share of the learning rate at the end of a cosine."""
    warmup_from: float = 0.001
    """Share of the learning rate in the first step of the warm-up."""
    searches_dilations: bool = False
    """True for RF-Next."""


_SCORE = Setting(0.05, "instances with a lower score are dropped", minimum=0, maximum=1, prediction=True)
_PYRAMID = {
    "anchor_scale": Setting(
        2,
        "side of an anchor: 2 makes 8 to 128 pixels (published 8: 32 to 512 pixels, for photographs)",
        unit="strides of its level",
        type=float,
        above=0,
    ),
    "proposals": Setting(
        3000, "most boxes an image that reach the second stage in prediction (published 1000)", unit="boxes", minimum=1
    ),
    "max_detections": Setting(
        3000, "most instances an image (published 100, of Seesaw 300)", unit="instances", minimum=1, prediction=True
    ),
    "rois": Setting(
        512, "boxes a window that the second stage trains on, a quarter of them on cells", unit="boxes", minimum=1
    ),
    "nms_iou": Setting(
        0.5, "of two boxes that overlap more the weaker goes", unit="IoU", minimum=0, maximum=1, prediction=True
    ),
    "score_threshold": _SCORE,
}
_COMMON = {
    **SCALES,
    "normalisation": NORMALISATION,
    "warmup_steps": Setting(500, "of linear warm-up, a tenth of the training at most", unit="steps", minimum=0),
    "clip_norm": Setting(
        35.0, "largest norm of all gradients: published only for SOLOv2 (35) and Mask2Former (0.01)", above=0
    ),
    "flips": Setting(True, "left to right and top to bottom, each for half of the windows (published: left to right)"),
    "crop": Setting(
        "none",
        "side of what a step sees of a window, around a random cell: none for all of it",
        unit="pixels",
        type=int,
        words=("none",),
        minimum=1,
    ),
    "precision": Setting(
        "auto",
        "of the training: auto is float16 on a GPU and float32 else, where half precision is slow",
        choices=("auto", *PRECISIONS),
    ),
    "pretrained": Setting(
        "none", "none, imagenet (fetched once into the cache folder), or the path of the backbone's weights"
    ),
    "workers": Setting(
        "auto",
        "processes that read windows beside each training one: auto is none on a CPU, up to 4 on a GPU",
        unit="processes",
        type=int,
        words=("auto",),
        minimum=0,
    ),
    "graphs": Setting(
        True,
        "on a GPU, launch what sees whole windows at once as a CUDA graph, where that gives the same",
        neutral_default=True,
    ),
    "options": Setting(
        {}, "dotted keys of MMEngine's configuration with other values, as upstream's --cfg-options: come last"
    ),
}
_WARM_UP = {"warmup_steps": _COMMON["warmup_steps"]}
_PLAIN = {**_WARM_UP, "clip_norm": _COMMON["clip_norm"]}
_RATE_STEPS = "parts of the training after which the rate falls to a tenth"


def _falls(steps: tuple[float, ...]) -> Setting:
    return Setting(list(steps), _RATE_STEPS, unit="share", type=float, above=0, maximum=1, may_be_empty=True)


def _optimizer(name: str, rate: float, batch: int, steps: tuple[float, ...], decay: float) -> dict[str, Setting]:
    law = "in proportion" if name == "SGD" else "with its square root"
    return {
        "optimizer": Setting(name, "of the training", choices=("SGD", "AdamW")),
        "learning_rate": Setting(rate, "of the optimizer, at the batch that it is for", above=0),
        "learning_rate_batch": Setting(
            batch, f"the batch that the rate is for: the rate follows the run's batch {law}", unit="windows", minimum=1
        ),
        "learning_rate_steps": _falls(steps),
        "weight_decay": Setting(decay, "of the optimizer", minimum=0),
    }


def _sgd(rate: float, batch: int, steps: tuple[float, ...], decay: float = 1e-4) -> dict[str, Setting]:
    momentum = Setting(0.9, "of SGD", minimum=0, below=1)
    return {**_optimizer("SGD", rate, batch, steps, decay), "momentum": momentum}


def _adamw(batch: int, steps: tuple[float, ...], rate: float = 1e-4) -> dict[str, Setting]:
    return _optimizer("AdamW", rate, batch, steps, 0.05)


_FROM_SCRATCH = Start("pretrained", "none")


def _from_imagenet(name: str) -> Start:
    return Start("pretrained", "none", backbone="imagenet", weights={"imagenet": (backbone_of(name).name,)})


def _card(name: str, title: str, settings: Mapping[str, Setting], start: Start | None = None, **card: Any) -> Card:
    fields: dict[str, Any] = {
        "score_rule": "the second stage's class probability of the box",
        "attention": False,
        "resources": Resources(num_gpus=4, memory_gb=8),
    }
    # a network of two steps calls nearly everything a cell: these keep the check from drawing thousands
    quick = {"proposals": 100, "rois": 64, "queries": 100, "candidates": 100}
    return Card(
        name=name,
        title=title,
        family="mmdet",
        environment="torch",
        trained=True,
        libraries=("onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "torch", "torchvision"),
        settings={**_COMMON, **settings},
        start=start or _from_imagenet(name),
        check_settings={key: value for key, value in quick.items() if key in settings},
        data_parallel="torchrun",
        precisions=PRECISIONS,
        resumable=True,
        may_halve_batch=True,
        url="https://github.com/open-mmlab/mmdetection",
        licence="Apache-2.0",
        **{**fields, **card},
    )


_MEAN_OF_STAGES = "the mean over the three stages of the box's class probability"

MASK_RCNN = _card(
    "mask-rcnn",
    "Mask R-CNN",
    _PYRAMID | _sgd(0.1, 96, (0.88, 0.96), decay=4e-5),
    category="two-stage",
    budget=Budget(
        batch_size=24,
        epochs=100,
        note=f"paper: batch 24, 100 epochs; {SCRIPTS}: 24 a GPU (96 in all), 25 epochs (TissueNet 1-channel) or 50 "
        f"over a set repeated 4 times. {_FOUR_GPUS}",
    ),
    paper="He et al., ICCV 2017, arXiv:1703.06870",
)

MS_RCNN = _card(
    "ms-rcnn",
    "MS R-CNN",
    # upstream's rate and steps: the scripts' 0.001 for 96 to 192 windows is the one that the paper says did not learn
    _PYRAMID | _sgd(0.02, 16, (0.667, 0.917)),
    category="two-stage",
    budget=Budget(
        batch_size=48,
        epochs=50,
        note=f"paper: batch 48, 50 epochs; {SCRIPTS}: 24 to 48 a GPU (96 to 192 in all) and 50, 100 or 200 epochs by "
        f"task. {_FOUR_GPUS}",
    ),
    score_rule="the box's class probability times the IoU that the third head predicts for its mask",
    paper="Huang et al., CVPR 2019, arXiv:1903.00241",
)

MASK2FORMER = _card(
    "mask2former",
    "Mask2Former",
    {
        "queries": Setting(
            1000,
            "most instances an image by design, for each query finds one at most (published 100)",
            unit="instances",
            minimum=1,
        ),
        "score_threshold": replace(
            _SCORE, doc=f"{_SCORE.doc} (published none: all queries are handed out, most of them near 0)"
        ),
        **_adamw(144, (0.889, 0.963)),
        "backbone_rate": Setting(
            "auto",
            "the backbone's share of the rate: auto is 0.1 (published) if pretrained and 1 if not",
            unit="factor",
            type=float,
            words=("auto",),
            minimum=0,
        ),
        **changed(_PLAIN, warmup_steps=0, clip_norm=0.01),
    },
    category="query",
    attention=True,
    budget=Budget(
        batch_size=36,
        epochs=50,
        note=f"paper: batch 36, 50 epochs; {SCRIPTS}: 368,750 iterations, 36 a GPU (144 in all), 2 a GPU for LIVECell. "
        f"{_FOUR_GPUS}",
    ),
    score_rule="the query's class probability times the mean probability of its mask's pixels",
    paper="Cheng et al., CVPR 2022, arXiv:2112.01527",
)

CASCADE_MASK_RCNN_SEESAW = _card(
    "cascade-mask-rcnn-seesaw",
    "Cascade Mask R-CNN Seesaw",
    changed(_PYRAMID, score_threshold=0.0001) | _adamw(32, (0.54, 0.8)) | changed(_WARM_UP, warmup_steps=1000),
    category="multi-stage",
    budget=Budget(
        batch_size=8,
        epochs=50,
        note=f"paper: batch 8, 50 epochs; {SCRIPTS}: 8 a GPU (32 in all), 100 epochs for LIVECell. {_FOUR_GPUS}",
    ),
    score_rule="the mean over the three stages of class probability times objectness, "
    "as the Seesaw classifier gives them",
    paper="Wang et al., CVPR 2021, arXiv:2008.10032",
)

_SWIN_CARD: dict[str, Any] = {
    "settings": _PYRAMID | _adamw(32, (0.54, 0.8)) | changed(_WARM_UP, warmup_steps=1000),
    "category": "two-stage",
    "attention": True,
    "budget": Budget(
        batch_size=8,
        epochs=50,
        note=f"paper: batch 8, 50 epochs; {SCRIPTS}: 8 a GPU (32 in all), 50 epochs. {_FOUR_GPUS}",
    ),
    "paper": "Liu et al., ICCV 2021, arXiv:2103.14030",
}
SWIN_S = _card("swin-s", "Swin-S", **_SWIN_CARD)
SWIN_T = _card("swin-t", "Swin-T", **_SWIN_CARD)

SOLOV2 = _card(
    "solov2",
    "SOLOv2",
    {
        "max_detections": Setting(
            3000,
            "most instances an image (published 100): its five grids hold 3872 by design",
            unit="instances",
            minimum=1,
            prediction=True,
        ),
        "candidates": Setting(
            3000, "most masks that enter Matrix NMS (published 500)", unit="masks", minimum=1, prediction=True
        ),
        "score_threshold": Setting(
            0.1,
            "masks with a lower score do not enter Matrix NMS: 0.05 after it",
            minimum=0,
            maximum=1,
            prediction=True,
        ),
        "scale_divisor": Setting(
            4,
            "of the sizes that share out cells among the five levels: 4 puts 24 pixels and less on the first",
            unit="factor",
            minimum=1,
        ),
        **_sgd(0.01, 32, (0.8, 0.95)),
    },
    category="one-stage",
    budget=Budget(
        batch_size=8,
        epochs=60,
        note=f"paper: batch 8, 60 epochs; {SCRIPTS}: 8 a GPU (32 in all), 60 epochs. {_FOUR_GPUS}",
    ),
    score_rule="class probability times the mean probability of the mask's pixels, lowered by Matrix NMS",
    paper="Wang et al., NeurIPS 2020, arXiv:2003.10152",
)

RF_NEXT = _card(
    "rf-next",
    "RF-Next",
    _PYRAMID
    | _sgd(0.02, 32, (0.75, 0.9))
    | {
        "search_epochs": Setting(
            11,
            "with a search step at their end, half of all at most (upstream's search: 11 steps)",
            unit="epochs",
            minimum=0,
        )
    },
    category="multi-stage",
    budget=Budget(
        batch_size=8,
        epochs=200,
        note=f"paper: batch 8, 200 epochs, on Mask R-CNN; {SCRIPTS}: 8 a GPU (32 in all), 500 epochs (TissueNet "
        f"1-channel), 200 (2-channel) or 20 (LIVECell), on Cascade Mask R-CNN with Res2Net-101. {_FOUR_GPUS}",
    ),
    score_rule=_MEAN_OF_STAGES,
    paper="Gao et al., IEEE TPAMI 2022, arXiv:2206.06637",
)

HRNET = _card(
    "hrnet",
    "HRNet",
    _PYRAMID | _sgd(0.02, 96, (0.5, 0.75)),
    category="multi-stage",
    budget=Budget(
        batch_size=24,
        epochs=200,
        note=f"paper: batch 24, 200 epochs; {SCRIPTS}: 16 to 48 a GPU (64 to 192 in all) by task, 100 epochs for whole "
        f"cells from one channel. {_FOUR_GPUS}",
    ),
    score_rule=_MEAN_OF_STAGES,
    paper="Wang et al., IEEE TPAMI 2020, arXiv:1908.07919",
)

RES2NET = _card(
    "res2net",
    "Res2Net",
    _PYRAMID | _sgd(0.02, 32, (0.8, 0.95)),
    category="multi-stage",
    budget=Budget(
        batch_size=8,
        epochs=20,
        note=f"paper: batch 8, 20 epochs; {SCRIPTS}: 8 a GPU (32 in all), 20 epochs, two Slurm files launch the "
        f"LIVECell configuration. {_FOUR_GPUS}",
    ),
    score_rule=_MEAN_OF_STAGES,
    paper="Gao et al., IEEE TPAMI 2021, arXiv:1904.01169",
)

RTMDET_INS = _card(
    "rtmdet-ins",
    "RTMDet-Ins",
    {
        "candidates": Setting(
            3000, "most boxes a level that enter suppression (published 1000)", unit="boxes", minimum=1, prediction=True
        ),
        "max_detections": Setting(
            3000, "most instances an image (published 100)", unit="instances", minimum=1, prediction=True
        ),
        "nms_iou": Setting(
            0.6, "of two boxes that overlap more the weaker goes", unit="IoU", minimum=0, maximum=1, prediction=True
        ),
        "score_threshold": _SCORE,
        **{key: one for key, one in _adamw(256, (), 0.004).items() if key != "learning_rate_steps"},
        "cosine_from": Setting(
            0.5, "part of the training after which the rate falls along a cosine, to a twentieth", minimum=0, below=1
        ),
        "averaging": Setting(
            2e-4,
            "share of a step's weights in the running average that is kept, in the long run (0: the last are)",
            minimum=0,
            maximum=0.5,
        ),
        **changed(_PLAIN, warmup_steps=1000),
        "pretrained": Setting("none", "none, or the path of the backbone's weights: upstream starts from random ones"),
    },
    start=_FROM_SCRATCH,
    category="one-stage",
    attention=True,
    resources=Resources(num_gpus=1, memory_gb=8),
    budget=Budget(
        batch_size=16,
        epochs=300,
        note="not in the study; upstream's configuration has 300 epochs, of COCO, and 32 windows on each of 8 GPUs "
        "(256 in all): 16 here, for sets of cells are a hundredth of COCO",
    ),
    score_rule="the class probability of the box",
    paper="Lyu et al., 2022, arXiv:2212.07784",
)

_RES2NET = Recipe(
    "res2net/cascade-mask-rcnn_res2net-101_fpn_20e_coco.py",
    imagenet=backbone_of("res2net"),
    stem="stem.0.weight",
)

RECIPES: Mapping[str, Recipe] = {
    "mask-rcnn": Recipe(
        "strong_baselines/mask-rcnn_r50-caffe_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py",
        imagenet=backbone_of("mask-rcnn"),
        stem="conv1.weight",
        warmup_from=0.067,
    ),
    "ms-rcnn": Recipe(
        "ms_rcnn/ms-rcnn_r50-caffe_fpn_2x_coco.py",
        imagenet=backbone_of("mask-rcnn"),
        stem="conv1.weight",
    ),
    "mask2former": Recipe(
        "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py",
        imagenet=backbone_of("solov2"),
        stem="conv1.weight",
        decay={key: {"decay_mult": 0.0} for key in ("query_embed", "query_feat", "level_embed")},
        norm_decay=0.0,
    ),
    "cascade-mask-rcnn-seesaw": Recipe(
        "seesaw_loss/cascade-mask-rcnn_r101_fpn_seesaw-loss-normed-mask_random-ms-2x_lvis-v1.py",
        imagenet=backbone_of("cascade-mask-rcnn-seesaw"),
        stem="conv1.weight",
        decay=_SWIN_DECAY,
    ),
    "swin-t": Recipe(
        "swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py",
        imagenet=backbone_of("swin-t"),
        stem="patch_embed.proj.weight",
        decay=_SWIN_DECAY,
    ),
    "swin-s": Recipe(
        # its AMP is left to the setting "precision"
        "swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py",
        imagenet=backbone_of("swin-s"),
        stem="patch_embed.proj.weight",
        decay=_SWIN_DECAY,
    ),
    "solov2": Recipe("solov2/solov2_r50_fpn_1x_coco.py", imagenet=backbone_of("solov2"), stem="conv1.weight"),
    "rf-next": replace(_RES2NET, searches_dilations=True),
    "hrnet": Recipe(
        "hrnet/cascade-mask-rcnn_hrnetv2p-w32_20e_coco.py",
        imagenet=backbone_of("hrnet"),
        stem="conv1.weight",
    ),
    "res2net": _RES2NET,
    "rtmdet-ins": Recipe(
        "rtmdet/rtmdet-ins_l_8xb32-300e_coco.py",
        imagenet=None,
        stem="stem.0.conv.weight",
        norm_decay=0.0,
        bias_decay=0.0,
        warmup_from=1e-5,
        last_rate=0.05,
    ),
}
