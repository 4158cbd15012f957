"""The methods that run on MMDetection, ten of the study and a later one: one base, one row of a table each."""

from __future__ import annotations

from segbench.methods.mmdet import zoo
from segbench.methods.mmdet.base import MMDetMethod


class MaskRCNN(MMDetMethod):
    """Mask R-CNN with ResNet-50, FPN, two RPN convolutions and a 4conv1fc box head, batch norm everywhere."""

    card = zoo.MASK_RCNN


class MSRCNN(MMDetMethod):
    """Mask Scoring R-CNN with ResNet-50 and FPN."""

    card = zoo.MS_RCNN


class Mask2Former(MMDetMethod):
    """Mask2Former with ResNet-50."""

    card = zoo.MASK2FORMER


class CascadeMaskRCNNSeesaw(MMDetMethod):
    """Cascade Mask R-CNN with ResNet-101, FPN, normed classifiers and the Seesaw loss."""

    card = zoo.CASCADE_MASK_RCNN_SEESAW


class SwinT(MMDetMethod):
    """Mask R-CNN with Swin-T and FPN."""

    card = zoo.SWIN_T


class SwinS(MMDetMethod):
    """Mask R-CNN with Swin-S and FPN."""

    card = zoo.SWIN_S


class SOLOv2(MMDetMethod):
    """SOLOv2 with ResNet-50 and FPN."""

    card = zoo.SOLOV2


class RFNext(MMDetMethod):
    """Cascade Mask R-CNN with Res2Net-101 and FPN, whose backbone's dilations are searched while it trains."""

    card = zoo.RF_NEXT


class HRNet(MMDetMethod):
    """Cascade Mask R-CNN with HRNetV2p-W32."""

    card = zoo.HRNET


class Res2Net(MMDetMethod):
    """Cascade Mask R-CNN with Res2Net-101 and FPN."""

    card = zoo.RES2NET


class RTMDetIns(MMDetMethod):
    """RTMDet-Ins-l: a one-stage network with CSPNeXt, whose masks come of convolutions that it draws for each cell."""

    card = zoo.RTMDET_INS


__all__ = [
    "MSRCNN", "CascadeMaskRCNNSeesaw", "HRNet", "MMDetMethod", "Mask2Former", "MaskRCNN", "RFNext", "RTMDetIns",
    "Res2Net", "SOLOv2", "SwinS", "SwinT",
]  # fmt: skip
