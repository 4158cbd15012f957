"""Segment Anything: upstream's automatic mask generator with published weights, not trained."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError
from segbench.methods import torch_devices
from segbench.methods.base import ImageStack, Method, Progress
from segbench.methods.card import Budget, Card, Resources
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job
from segbench.methods.mask_encoding import encode
from segbench.methods.predictions import Kind, MaskInstances
from segbench.methods.published import SCRIPTS
from segbench.methods.scales import SETTINGS as SCALES
from segbench.methods.setting import Setting
from segbench.methods.weights import Released, released

WEIGHTS: Mapping[str, Released] = {
    model: released(f"sam-{model.replace('_', '-')}") for model in ("vit_h", "vit_l", "vit_b")
}
"""Upstream's three models."""


class SegmentAnything(Method):
    """SAM's automatic mask generator with upstream's defaults, and the study's two rules for what it returns."""

    prediction_kind: ClassVar[Kind] = "masks"
    card = Card(
        name="segment-anything",
        title="Segment Anything",
        family="sam",
        environment="torch",
        category="foundation",
        trained=False,
        attention=True,
        budget=Budget(
            batch_size=1,
            note=f"paper: not trained, ViT-H with default settings; {SCRIPTS}: also drop masks of 10,000 pixels "
            "or more",
        ),
        resources=Resources(num_gpus=1, memory_gb=12),
        libraries=("segment-anything", "torch", "torchvision"),
        settings={
            **SCALES,
            "model": Setting("vit_h", "vit_h, vit_l, vit_b, or the path of a JSON file with an architecture"),
            "checkpoint": Setting("", "path of the weights: empty for the published file in the cache folder"),
            "points_per_side": Setting(32, "prompts along each side of a window", unit="points", minimum=1),
            "points_per_batch": Setting(64, "prompts that are decoded at once", unit="points", minimum=1),
            "pred_iou_thresh": Setting(
                0.88, "masks with a lower predicted IoU are dropped", unit="IoU", minimum=0, maximum=1
            ),
            "stability_score_thresh": Setting(
                0.95, "masks that change more with their threshold are dropped", unit="IoU", minimum=0, maximum=1
            ),
            "stability_score_offset": Setting(
                1.0, "how far the threshold is moved up and down for that", unit="logit", minimum=0
            ),
            "box_nms_thresh": Setting(
                0.7, "of two boxes that overlap more the weaker goes", unit="IoU", minimum=0, maximum=1
            ),
            "crop_n_layers": Setting(
                0, "layers of crops, each of twice as many a side, that are segmented too", unit="layers", minimum=0
            ),
            "min_mask_region_area": Setting(
                0, "smaller pieces and holes of a mask are removed", unit="pixels", minimum=0
            ),
            "max_area": Setting(
                10_000,
                "masks of this size or larger are dropped, as in the study's scripts: 0 keeps all",
                unit="pixels",
                minimum=0,
            ),
            "overwrite_overlap": Setting(
                0.7,
                "the study's painting rule, see `paint`: 0 leaves masks with their overlaps",
                unit="share",
                minimum=0,
                maximum=1,
            ),
            "windows_together": Setting(
                4, "windows that go through the image encoder at once", unit="windows", minimum=1
            ),
        },
        score_rule="the mask's predicted IoU times its stability score, both as SAM gives them",
        paper="Kirillov et al., ICCV 2023, arXiv:2304.02643",
        url="https://github.com/facebookresearch/segment-anything",
        licence="Apache-2.0",
    )

    def import_library(self, job: Job) -> None:
        """Import torch and segment-anything; set threads, seeds and the device."""
        self._device = torch_devices.prepare_torch(job)
        import segment_anything
        import torch
        from segment_anything import automatic_mask_generator

        # upstream waits for the device several times a mask
        automatic_mask_generator.mask_to_rle_pytorch = runs_of_masks
        self._torch: Any = torch
        self._sam: Any = segment_anything

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:  # noqa: ARG002
        """Build the model and load its weights."""
        model, given = str(job.settings["model"]), str(job.settings["checkpoint"])
        if model not in WEIGHTS and not model.endswith(".json"):
            raise SegbenchError(f"setting model is {model!r}; it is {', '.join(WEIGHTS)} or the path of a JSON file")
        file = find_weights(model, given)
        self._model = self._build(model)
        state = self._torch.load(file, map_location="cpu", weights_only=True)
        try:
            self._model.load_state_dict(state)
        except RuntimeError as error:
            raise SegbenchError(f"{file} does not hold the weights of {model}: {str(error).splitlines()[0]}") from error
        self._model.eval().to(self._device)

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Not called: SAM is not trained."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Not called: SAM is not trained."""
        raise NotImplementedError

    def restore(self, job: Job, folder: Path) -> None:
        """Not called: SAM is not trained."""
        raise NotImplementedError

    def predict(self, job: Job, images: ImageStack) -> Iterator[MaskInstances]:
        """Yield each window's masks, after the study's two rules, with their scores."""
        generator = self._generator(job.settings)
        together = self.at_once(int(job.settings["windows_together"]))
        for first in range(0, len(images), together):
            pictures = [picture(image, job.task.channels) for image in images[first : first + together]]
            if job.settings["crop_n_layers"] == 0:  # else upstream encodes crops of its own
                generator.predictor.encode_ahead(pictures)
            for image in pictures:
                yield chosen(generator.generate(image), job.settings)

    def n_parameters(self) -> int:
        """Return the number of weights of the model."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def gpu_names(self) -> list[str]:
        """Return the name of the GPU, if one was used."""
        return torch_devices.gpu_names(self._device)

    def peak_gpu_memory_bytes(self) -> int | None:
        """Return the most memory that torch's allocator held."""
        return torch_devices.peak_gpu_memory_bytes(self._device)

    def _build(self, model: str) -> Any:
        if model in WEIGHTS:
            return self._sam.sam_model_registry[model]()
        return build_small(Path(model))

    def _generator(self, settings: Mapping[str, Any]) -> Any:
        names = (
            "points_per_side",
            "points_per_batch",
            "pred_iou_thresh",
            "stability_score_thresh",
            "stability_score_offset",
            "box_nms_thresh",
            "crop_n_layers",
            "min_mask_region_area",
        )
        options = {name: settings[name] for name in names}
        generator = self._sam.SamAutomaticMaskGenerator(self._model, output_mode="uncompressed_rle", **options)
        generator.predictor = self._predictor()
        return generator

    def _predictor(self) -> Any:
        torch = self._torch

        class Ahead(self._sam.SamPredictor):  # type: ignore[misc, name-defined]
            """Upstream's predictor, which encodes one image at a time, with the encodings of several made at once."""

            def __init__(self, model: Any) -> None:
                super().__init__(model)
                self.ready: deque[Any] = deque()

            def encode_ahead(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> None:
                """Encode pictures (H, W, 3) of one size; the next calls of ``set_image`` take them in this order."""
                planes = [torch.as_tensor(self.transform.apply_image(p), device=self.device) for p in pictures]
                resized = torch.stack([p.permute(2, 0, 1) for p in planes]).contiguous()
                with torch.inference_mode():
                    encoded = self.model.image_encoder(self.model.preprocess(resized))
                self.ready.extend((encoded[n : n + 1], tuple(resized.shape[-2:])) for n in range(len(pictures)))

            def set_image(self, image: npt.NDArray[np.uint8], image_format: str = "RGB") -> None:
                if not self.ready:
                    super().set_image(image, image_format)
                    return
                self.reset_image()
                self.features, self.input_size = self.ready.popleft()
                self.original_size, self.is_image_set = image.shape[:2], True

        return Ahead(self._model)


def find_weights(model: str, given: str) -> Path:
    """Return the file of the weights: the one that is named, or the published one in the cache folder, once verified.

    Raises
    ------
    SegbenchError
        Where it is not there or not the published one; says what to put where.
    """
    if given or model not in WEIGHTS:
        file = Path(given).expanduser()
        if not given or not file.is_file():
            raise SegbenchError(
                f"setting checkpoint is {given!r}, which is no file; model {model} needs one with its weights"
            )
        return file
    return WEIGHTS[model].verified()


def build_small(path: Path) -> Any:
    """Return an untrained SAM by a JSON file with ``image_size``, ``embed_dim``, ``depth`` and ``num_heads``.

    Put together as upstream's ``build_sam.py`` does, which fixes an image size of 1024 pixels.
    For tests, and for weights of one's own.
    """
    try:
        asked = json.loads(path.read_text())
        size, dim, depth, heads = (int(asked[name]) for name in ("image_size", "embed_dim", "depth", "num_heads"))
    except FileNotFoundError:
        raise SegbenchError(
            f"setting model names {path}, which is no file; it is {', '.join(WEIGHTS)} or JSON"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise SegbenchError(
            f"{path}: expected JSON with whole numbers image_size, embed_dim, depth and num_heads ({error!r})"
        ) from None
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    prompt, patch = 256, 16
    transformer = TwoWayTransformer(depth=2, embedding_dim=prompt, mlp_dim=2048, num_heads=8)
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=size, patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads, out_chans=prompt,
            use_rel_pos=True, window_size=14, global_attn_indexes=(depth - 1,),
        ),
        prompt_encoder=PromptEncoder(prompt, (size // patch, size // patch), (size, size), mask_in_chans=16),
        mask_decoder=MaskDecoder(transformer_dim=prompt, transformer=transformer),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )  # fmt: skip


def picture(image: npt.NDArray[np.float32], channels: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the (H, W, 3) picture of 0..255 that SAM sees of a window (C, H, W) of 0..1.

    One channel is repeated. Of two, the nuclear one comes second, before zeros: (whole cell,
    nuclear, zeros), as the study's scripts have it.

    Examples
    --------
    >>> picture(np.array([[[0.0]], [[1.0]]], np.float32), ("nuclear", "membrane")).ravel().tolist()
    [255, 0, 0]
    """
    if image.shape[0] == 2:
        nuclear = channels.index("nuclear") if "nuclear" in channels else 1
        planes = np.stack([image[1 - nuclear], image[nuclear], np.zeros_like(image[0])])
    elif image.shape[0] == 1:
        planes = np.repeat(image, 3, axis=0)
    elif image.shape[0] == 3:
        planes = image
    else:
        raise SegbenchError(f"Segment Anything takes 1 to 3 channels, found {image.shape[0]}")
    return np.ascontiguousarray(np.moveaxis(np.rint(255 * planes.clip(0, 1)), 0, -1).astype(np.uint8))


def chosen(found: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> MaskInstances:
    """Return the instances that the study's two rules leave of the generator's records, with their scores."""
    most, overlap = settings["max_area"], settings["overwrite_overlap"]
    kept = [record for record in found if record["area"] > 0 and (not most or record["area"] < most)]
    scores = np.array([record["predicted_iou"] * record["stability_score"] for record in kept], dtype=np.float64)
    runs = [np.asarray(record["segmentation"]["counts"], np.uint32) for record in kept]
    if not overlap or not kept:
        return MaskInstances(runs, scores)
    size = tuple(kept[0]["segmentation"]["size"])
    labels = paint([from_runs(counts, size) for counts in runs], overlap)
    seen = np.unique(labels)
    seen = seen[seen > 0]
    return MaskInstances(encode(labels == seen[:, np.newaxis, np.newaxis]), scores[seen - 1])


def runs_of_masks(masks: Any) -> list[dict[str, Any]]:
    """Return masks (N, H, W), a boolean tensor, as upstream's ``mask_to_rle_pytorch`` does."""
    size = list(masks.shape[1:])
    return [{"size": size, "counts": runs.tolist()} for runs in encode(masks)]


def paint(masks: Sequence[npt.NDArray[np.bool_]], overlap: float) -> npt.NDArray[np.int32]:
    """Return one label map (H, W) of masks (H, W) that may overlap: mask n is n + 1 where it is seen.

    Larger masks are painted first. One of which at least the share ``overlap`` is painted over already is painted
    over that; of any other only the free part is added. (Segment Anything/segmentanything_nuclear_1C_test.py of the
    study's repository, read as a description.)

    Examples
    --------
    >>> large, inside, beside = (np.array([row], bool) for row in ([1, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0]))
    >>> paint([inside, beside, large], 0.7).tolist()
    [[3, 1, 3, 2, 0]]
    """
    labels = np.zeros(masks[0].shape, np.int32)
    for n in sorted(range(len(masks)), key=lambda n: -int(masks[n].sum())):
        mask = masks[n]
        painted = mask & (labels > 0)
        covers = painted.sum() >= overlap * mask.sum()
        labels[mask if covers else mask & ~painted] = n + 1
    return labels


def from_runs(counts: npt.NDArray[np.uint32], size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the mask (H, W) of COCO's uncompressed run lengths."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[::-1]).T
