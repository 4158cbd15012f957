"""Cards of the study's methods whose code is not here yet: they can be planned, not launched."""

from __future__ import annotations

from typing import Any

from segbench.methods.card import Budget, Card, Resources
from segbench.methods.published import SCRIPTS, usability

_FOUR_GPUS = "paper and Slurm files: 4 GPUs"
_NO_SLURM = "paper: 4 GPUs; scripts: one, with no distribution strategy"


def _mmdet(name: str, title: str, **card: Any) -> Card:
    return Card(
        name=name,
        title=title,
        family="mmdet",
        environment="torch",
        trained=True,
        resources=Resources(num_gpus=4, memory_gb=8),
        libraries=("onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "torch", "torchvision"),
        url="https://github.com/open-mmlab/mmdetection",
        licence="Apache-2.0",
        implemented=False,
        **card,
    )


def _deepcell(name: str, title: str, libraries: tuple[str, ...], **card: Any) -> Card:
    return Card(
        name=name,
        title=title,
        family="deepcell",
        environment="tensorflow",
        category="cell-specific",
        trained=True,
        attention=False,
        resources=Resources(num_gpus=1, memory_gb=8),
        libraries=libraries,
        licence="modified Apache-2.0, non-commercial",
        implemented=False,
        **card,
    )


MESMER = _deepcell(
    "mesmer",
    "Mesmer",
    ("deepcell", "deepcell-toolbox", "tensorflow"),
    budget=Budget(
        batch_size=8,
        epochs=200,
        note=f"paper: batch 8, 200 epochs; {SCRIPTS} agree (batch 1 until January 2024). {_NO_SLURM}",
    ),
    usability=usability(0.38),
    paper="Greenwald et al., Nature Biotechnology 40 (2022), doi:10.1038/s41587-021-01094-0",
    url="https://github.com/vanvalenlab/deepcell-tf",
)

RETINAMASK = _deepcell(
    "retinamask",
    "RetinaMask",
    ("deepcell-retinamask", "deepcell", "tensorflow"),
    budget=Budget(
        batch_size=8,
        epochs=100,
        note=f"paper: 100 epochs, batch not stated; {SCRIPTS}: batch 8, 100 epochs. {_NO_SLURM}",
    ),
    usability=usability(0.02),
    paper="Fu, Shvets and Berg, arXiv:1901.03353 (2019)",
    url="https://github.com/vanvalenlab/deepcell-retinamask",
)

FEATURENET = _deepcell(
    "featurenet",
    "FeatureNet",
    ("deepcell", "deepcell-toolbox", "tensorflow"),
    budget=Budget(
        batch_size=16,
        epochs=25,
        note=f"paper: batch 16, 25 epochs; {SCRIPTS}: batch 1 (hard-coded), foreground model 25 and edge model 100 "
        f"epochs. {_NO_SLURM}",
    ),
    usability=usability(0.01),
    paper="Van Valen et al., PLoS Computational Biology 12 (2016), doi:10.1371/journal.pcbi.1005177",
    url="https://github.com/vanvalenlab/deepcell-tf",
)

CENTERMASK2 = Card(
    name="centermask2",
    title="CenterMask2",
    family="detectron2",
    environment="torch",
    category="one-stage",
    trained=True,
    attention=True,
    budget=Budget(
        batch_size=32,
        iterations=100_000,
        note=f"paper: batch 32, 100,000 iterations; {SCRIPTS}: batch 4 for both 2-channel tasks, 200,000 iterations for "
        f"LIVECell, checkpoints tested at 40,000 to 100,000. {_FOUR_GPUS}",
    ),
    resources=Resources(num_gpus=4, memory_gb=8),
    usability=usability(0.25),
    libraries=("sal-detectron2", "timm", "torch", "torchvision"),
    paper="Lee and Park, CVPR 2020, arXiv:1911.06667",
    url="https://github.com/youngwanLEE/centermask2",
    licence="Apache-2.0",
    implemented=False,
)

RESNEST = Card(
    name="resnest",
    title="ResNeSt",
    family="detectron2",
    environment="torch",
    category="multi-stage",
    trained=True,
    attention=True,
    budget=Budget(
        batch_size=4,
        iterations=50_000,
        note=f"paper: batch 4, 50,000 iterations; {SCRIPTS}: 100,000 configured and 80,000 tested for LIVECell. "
        f"{_FOUR_GPUS}",
    ),
    resources=Resources(num_gpus=4, memory_gb=8),
    usability=usability(0.17),
    libraries=("sal-detectron2", "timm", "torch", "torchvision"),
    paper="Zhang et al., arXiv:2004.08955 (2020)",
    url="https://github.com/chongruo/detectron2-ResNeSt",
    licence="Apache-2.0",
    implemented=False,
)

MASK_RCNN = _mmdet(
    "mask-rcnn",
    "Mask R-CNN",
    category="two-stage",
    attention=False,
    budget=Budget(
        batch_size=24,
        epochs=100,
        note=f"paper: batch 24, 100 epochs; {SCRIPTS}: 24 a GPU (96 in all), 25 epochs (TissueNet 1-channel) or 50 over a "
        f"set repeated 4 times. {_FOUR_GPUS}",
    ),
    usability=usability(0.69),
    paper="He et al., ICCV 2017, arXiv:1703.06870",
)

MS_RCNN = _mmdet(
    "ms-rcnn",
    "MS R-CNN",
    category="two-stage",
    attention=False,
    budget=Budget(
        batch_size=48,
        epochs=50,
        note=f"paper: batch 48, 50 epochs; {SCRIPTS}: 24 to 48 a GPU (96 to 192 in all) and 50, 100 or 200 epochs by task. "
        f"{_FOUR_GPUS}",
    ),
    usability=usability(0.69),
    paper="Huang et al., CVPR 2019, arXiv:1903.00241",
)

MASK2FORMER = _mmdet(
    "mask2former",
    "Mask2Former",
    category="query",
    attention=True,
    budget=Budget(
        batch_size=36,
        epochs=50,
        note=f"paper: batch 36, 50 epochs; {SCRIPTS}: 368,750 iterations, 36 a GPU (144 in all), 2 a GPU for LIVECell. "
        f"{_FOUR_GPUS}",
    ),
    usability=usability(0.69),
    paper="Cheng et al., CVPR 2022, arXiv:2112.01527",
)

CASCADE_MASK_RCNN_SEESAW = _mmdet(
    "cascade-mask-rcnn-seesaw",
    "Cascade Mask R-CNN Seesaw",
    category="multi-stage",
    attention=False,
    budget=Budget(
        batch_size=8,
        epochs=50,
        note=f"paper: batch 8, 50 epochs; {SCRIPTS}: 8 a GPU (32 in all), 100 epochs for LIVECell. {_FOUR_GPUS}",
    ),
    usability=usability(0.69),
    paper="Wang et al., CVPR 2021, arXiv:2008.10032",
)

_SWIN_NOTE = f"paper: batch 8, 50 epochs; {SCRIPTS}: 8 a GPU (32 in all), 50 epochs. {_FOUR_GPUS}"

SWIN_S = _mmdet(
    "swin-s",
    "Swin-S",
    category="two-stage",
    attention=True,
    budget=Budget(batch_size=8, epochs=50, note=_SWIN_NOTE),
    usability=usability(0.69),
    paper="Liu et al., ICCV 2021, arXiv:2103.14030",
)

SWIN_T = _mmdet(
    "swin-t",
    "Swin-T",
    category="two-stage",
    attention=True,
    budget=Budget(batch_size=8, epochs=50, note=_SWIN_NOTE),
    usability=usability(0.69),
    paper="Liu et al., ICCV 2021, arXiv:2103.14030",
)

SOLOV2 = _mmdet(
    "solov2",
    "SOLOv2",
    category="one-stage",
    attention=False,
    budget=Budget(
        batch_size=8,
        epochs=60,
        note=f"paper: batch 8, 60 epochs; {SCRIPTS}: 8 a GPU (32 in all), 60 epochs. {_FOUR_GPUS}",
    ),
    usability=usability(0.63),
    paper="Wang et al., NeurIPS 2020, arXiv:2003.10152",
)

RF_NEXT = _mmdet(
    "rf-next",
    "RF-Next",
    category="multi-stage",
    attention=False,
    budget=Budget(
        batch_size=8,
        epochs=200,
        note=f"paper: batch 8, 200 epochs, on Mask R-CNN; {SCRIPTS}: 8 a GPU (32 in all), 500 epochs (TissueNet 1-channel), "
        f"200 (2-channel) or 20 (LIVECell), on Cascade Mask R-CNN with Res2Net-101. {_FOUR_GPUS}",
    ),
    usability=usability(0.69),
    paper="Gao et al., IEEE TPAMI 2022, arXiv:2206.06637",
)

HRNET = _mmdet(
    "hrnet",
    "HRNet",
    category="multi-stage",
    attention=False,
    budget=Budget(
        batch_size=24,
        epochs=200,
        note=f"paper: batch 24, 200 epochs; {SCRIPTS}: 16 to 48 a GPU (64 to 192 in all) by task, 100 epochs for whole "
        f"cells from one channel. {_FOUR_GPUS}",
    ),
    usability=usability(0.69),
    paper="Wang et al., IEEE TPAMI 2020, arXiv:1908.07919",
)

RES2NET = _mmdet(
    "res2net",
    "Res2Net",
    category="multi-stage",
    attention=False,
    budget=Budget(
        batch_size=8,
        epochs=20,
        note=f"paper: batch 8, 20 epochs; {SCRIPTS}: 8 a GPU (32 in all), 20 epochs, two Slurm files launch the LIVECell "
        f"configuration. {_FOUR_GPUS}",
    ),
    usability=usability(0.69),
    paper="Gao et al., IEEE TPAMI 2021, arXiv:1904.01169",
)

SEGMENT_ANYTHING = Card(
    name="segment-anything",
    title="Segment Anything",
    family="sam",
    environment="torch",
    category="foundation",
    trained=False,
    attention=True,
    budget=Budget(
        batch_size=1,
        note=f"paper: not trained, ViT-H with default settings; {SCRIPTS}: also drop masks of 10,000 pixels or more",
    ),
    resources=Resources(num_gpus=1, memory_gb=12),
    usability=usability(0.78),
    libraries=("segment-anything", "torch", "torchvision"),
    paper="Kirillov et al., ICCV 2023, arXiv:2304.02643",
    url="https://github.com/facebookresearch/segment-anything",
    licence="Apache-2.0",
    implemented=False,
)
