"""timm's backbones under detectron2's names; imported only where both are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import timm
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from timm.layers import SplitAttn, freeze_batch_norm_2d
from timm.models import load_state_dict
from torch import nn
from torchvision.ops import deform_conv2d

from segbench.errors import SegbenchError
from segbench.paths import cache_folder


class TimmBackbone(Backbone):  # type: ignore[misc]
    """The stages of a timm network as ``res2`` (stride 4) to ``res5`` (stride 32).

    Parameters
    ----------
    name
        timm's name, such as ``resnest200e``.
    stages
        Which stages come out, such as ``("res3", "res4", "res5")``.
    pretrained
        ``none``, ``imagenet`` or the path of a file with weights for ``name``.
    frozen_norm
        True to keep batch norms at what they are loaded with.
    """

    def __init__(self, name: str, stages: tuple[str, ...], pretrained: str, *, frozen_norm: bool = False) -> None:
        super().__init__()
        strides = [2 ** int(stage.removeprefix("res")) for stage in stages]
        if not timm.is_model(name):
            near = ", ".join(timm.list_models("*resnest*") + timm.list_models("*vovnet*"))
            raise SegbenchError(f"setting backbone is {name!r}, which timm does not have; it has {near} and others")
        with torch.device("meta"):  # its strides alone
            all_strides = timm.create_model(name, features_only=True).feature_info.reduction()
        places = tuple(all_strides.index(stride) for stride in strides)
        self.network = create(name, pretrained, features_only=True, out_indices=places)
        if frozen_norm:
            self.network = freeze_batch_norm_2d(self.network)
        self._out_features = list(stages)
        self._out_feature_strides: dict[str, int] = dict(zip(stages, strides, strict=True))
        self._out_feature_channels = dict(zip(stages, self.network.feature_info.channels(), strict=True))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the stages of images (N, 3, H, W)."""
        return dict(zip(self._out_features, self.network(images), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each stage."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this."""
        return max(self._out_feature_strides.values())


class DeformableConvolution(nn.Module):  # type: ignore[misc]
    """A convolution with moved and weighed sampling points (Zhu et al., CVPR 2019, section 3.2), by torchvision.

    Parameters
    ----------
    plain
        The convolution in whose place it comes; its weights are taken over.
    groups
        Channels are split into so many groups, each with points of its own.
    """

    def __init__(self, plain: nn.Conv2d, groups: int) -> None:
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self._place = {"stride": plain.stride, "padding": plain.padding, "dilation": plain.dilation}
        height, width = plain.kernel_size
        self.points = nn.Conv2d(plain.in_channels, 3 * groups * height * width, plain.kernel_size, **self._place)
        nn.init.zeros_(self.points.weight)
        nn.init.zeros_(self.points.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features that the plain convolution would have in shape; the points start where its are.

        In float32 also under autocast, as PyTorch has it on a GPU; on a processor torchvision has no half kernel.
        """
        *offsets, weights = self.points(x).chunk(3, dim=1)
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(x.device.type, enabled=False):
            points = torch.cat(offsets, dim=1).float()
            shares = weights.float().sigmoid()
            moved = deform_conv2d(x.float(), points, self.weight.float(), bias, mask=shares, **self._place)
        features: torch.Tensor = moved.to(x.dtype)
        return features


def deform(backbone: TimmBackbone, groups: int) -> None:
    """Make the 3 x 3 convolutions of a ResNeSt deformable in all stages but its first, as the study has it."""
    if not any(isinstance(module, SplitAttn) for module in backbone.modules()):
        raise SegbenchError("setting deformable_groups is for ResNeSt backbones; set it to 0 for any other")
    for name, module in backbone.network.named_modules():
        if isinstance(module, SplitAttn) and not name.startswith("layer1"):
            module.conv = DeformableConvolution(module.conv, groups)


def channels_last(model: Any) -> None:
    """Keep a detector's convolutions in the order in memory that tensor cores want, which spares turning it each time.

    Backbones with deformable convolutions stay as they are: torchvision's operator wants channels first.
    """
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, TimmBackbone) and any(
            isinstance(each, DeformableConvolution) for each in module.modules()
        ):
            module.to(memory_format=torch.contiguous_format)


def create(name: str, pretrained: str, **options: Any) -> Any:
    """Return timm's network with the weights that ``pretrained`` names, loaded by timm itself.

    Raises
    ------
    SegbenchError
        Where the weights are not there: says what to put where.
    """
    if pretrained == "none":
        return timm.create_model(name, pretrained=False, **options)
    if pretrained != "imagenet":
        file = Path(pretrained).expanduser()
        if not file.is_file():
            raise SegbenchError(f"setting pretrained names {file}, which is no file; it is none, imagenet or a file")
        return _from_file(name, file, options)
    kept = [cache_folder() / "pretrained" / f"{name}.{kind}" for kind in ("safetensors", "bin", "pth")]
    for file in kept:
        if file.is_file():
            return _from_file(name, file, options)
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if not config.has_weights:
        raise SegbenchError(
            f"timm has no ImageNet weights for {name}: name a file in setting pretrained, or another backbone"
        )
    try:
        return timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:  # what the hub's client raises without a network
        where = config.hf_hub_id or config.url
        raise SegbenchError(
            f"cannot fetch timm's ImageNet weights of {name} ({type(error).__name__}): "
            f"put model.safetensors of {where} at {kept[0]} (pytorch_model.bin "
            f"at {kept[1].name} beside it), or name a file in setting pretrained"
        ) from error


def _from_file(name: str, file: Path, options: dict[str, Any]) -> Any:
    try:
        found = load_state_dict(str(file))
    except (RuntimeError, KeyError, ValueError, OSError, pickle.UnpicklingError) as error:
        raise SegbenchError(f"{file} does not load as weights: {str(error).splitlines()[0]}") from error
    with torch.device("meta"):
        wanted = timm.create_model(name, num_classes=0).state_dict()
    # timm itself takes what fits, and nothing where nothing does
    missing = [key for key in wanted if key not in found or found[key].shape != wanted[key].shape]
    if missing:
        raise SegbenchError(f"{file} does not hold timm's weights of {name}: it has no {missing[0]} of the right shape")
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **options)
