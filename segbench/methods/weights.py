"""Released weights: what is published for which method, where it lies in the cache, whether it is the right file."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segbench.errors import SegbenchError, unknown_name
from segbench.paths import cache_folder
from segbench.small_files import read_json, write_whole

_TIMEOUT_S = 60
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Released:
    """A file of weights that somebody has published."""

    name: str
    """What commands and errors call it."""
    methods: tuple[str, ...]
    """Names of the methods that can start from it."""
    kind: Literal["generalist", "part of a generalist", "backbone"]
    """A whole model of cells, a file that another one needs beside it, or a backbone that has seen ImageNet."""
    url: str
    """Where it is published."""
    file: str
    """Its name in the cache folder."""
    licence: str
    """Of the weights, as their authors tell it."""
    megabytes: float | None = None
    """Of 10^6 bytes; None where it is not told."""
    sha256: str | None = None
    """As upstream's own code, or that of others who use it, has it: whole, or its first eight digits; None where nobody
    tells."""
    source: str = ""
    """Where the checksum was read."""

    @property
    def path(self) -> Path:
        """Where it lies once it is fetched or added."""
        return weights_folder() / self.file

    def there(self) -> bool:
        """Return whether a file lies there, right or wrong."""
        return self.path.is_file()

    def verified(self) -> Path:
        """Return its path.

        Raises
        ------
        SegbenchError
            It is not there, or it is another file than the published one (where no checksum is published: than the
            one that was added).
        """
        if not self.there():
            raise SegbenchError(f"the weights {self.name} are not here: {self.how_to_get()}")
        check(self.path, self._noted() or self.sha256, f"the weights {self.name}")
        return self.path

    def how_to_get(self) -> str:
        """Return what to do, in one line."""
        return (
            f"'segbench methods weights fetch {self.name}', or where there is no network download {self.url} elsewhere "
            f"and 'segbench methods weights add {self.name} FILE'"
        )

    def _noted(self) -> str | None:
        told = read_json(_note_of(self.path)) or {}
        noted = told.get("sha256")
        return noted if isinstance(noted, str) else None


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM_SOURCE = "micro_sam/util.py of computational-cell-analytics/micro-sam"
_STARDIST = "https://github.com/stardist/stardist-models/releases/download/v0.1"
_STARDIST_SOURCE = "stardist/models/__init__.py of stardist 0.9.2"
_CELLPOSE = "https://www.cellpose.org/models"
_BACKBONE_LICENCE = "not told with the file; trained on ImageNet, whose images are for research"
_OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party"
_TORCHVISION = "https://download.pytorch.org/models"
_SWIN = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0"
_CELLPOSE_LICENCE = "BSD-3-Clause (the code's; no other is told)"


def _sam(model: str, file: str, sha256: str, megabytes: float) -> Released:
    return Released(
        name=f"sam-{model.replace('_', '-')}", methods=("segment-anything",), kind="generalist", url=f"{_SAM}/{file}",
        file=file, licence="Apache-2.0", megabytes=megabytes, sha256=sha256, source=_SAM_SOURCE,
    )  # fmt: skip


def _stardist(model: str, sha256: str) -> Released:
    file = f"python_{model}.zip"
    return Released(
        name=f"stardist-{model.lower().replace('_', '-')}", methods=("stardist",), kind="generalist",
        url=f"{_STARDIST}/{file}", file=file, licence="BSD-3-Clause", sha256=sha256,
        source=_STARDIST_SOURCE,
    )  # fmt: skip


def _backbone(url: str, *methods: str) -> Released:
    file = url.rpartition("/")[2]
    stem, _, tail = file.rpartition(".")[0].rpartition("-")
    digits = tail if len(tail) == 8 and set(tail) <= set("0123456789abcdef") else None
    source = "the file's name, which by PyTorch's custom ends in the first digits" if digits else ""
    name = (stem if digits else file.rpartition(".")[0]).replace("_", "-")
    return Released(
        name=f"imagenet-{name}", methods=methods, kind="backbone", url=url, file=file, licence=_BACKBONE_LICENCE,
        sha256=digits, source=source,
    )  # fmt: skip


def _cellpose(name: str, file: str, megabytes: float | None, *, size: bool = False) -> Released:
    return Released(
        name=name, methods=("cellpose",), kind="part of a generalist" if size else "generalist",
        url=f"{_CELLPOSE}/{file}", file=f"cellpose-{file}", licence=_CELLPOSE_LICENCE, megabytes=megabytes,
    )  # fmt: skip


RELEASED: Mapping[str, Released] = {
    one.name: one
    for one in (
        _cellpose("cellpose-cyto3", "cyto3", 26.6),
        _cellpose("cellpose-cyto3-size", "size_cyto3.npy", None, size=True),
        _cellpose("cellpose-nuclei", "nucleitorch_0", 26.6),
        _cellpose("cellpose-nuclei-size", "size_nucleitorch_0.npy", None, size=True),
        _stardist("2D_versatile_fluo", "4ad678d0758eed6e55625f1b5ae30771e59adb79f1239e09b9772eac8846c3dd"),
        _stardist("2D_paper_dsb2018", "4c11cf68512341d9e8ce3d1278c64ceb8ac400582739f85fcab079a2e82840d2"),
        _sam("vit_h", "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 2564),
        _sam("vit_l", "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 1249),
        _backbone(f"{_OPENMMLAB}/resnet50_msra-5891d200.pth", "mask-rcnn", "ms-rcnn"),
        _backbone(f"{_TORCHVISION}/resnet50-0676ba61.pth", "mask2former", "solov2"),
        _backbone(f"{_TORCHVISION}/resnet101-63fe2227.pth", "cascade-mask-rcnn-seesaw"),
        _backbone(f"{_OPENMMLAB}/res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth", "res2net", "rf-next"),
        _backbone(f"{_OPENMMLAB}/hrnetv2_w32-dc9eeb4f.pth", "hrnet"),
        _backbone(f"{_SWIN}/swin_tiny_patch4_window7_224.pth", "swin-t"),
        _backbone(f"{_SWIN}/swin_small_patch4_window7_224.pth", "swin-s"),
        _sam("vit_b", "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 375),
    )
}
"""All that segbench knows, by name."""


def backbone_of(method: str) -> Released:
    """Return the ImageNet weights that a method's published configuration starts from.

    Examples
    --------
    >>> backbone_of("ms-rcnn").name
    'imagenet-resnet50-msra'
    """
    return next(one for one in RELEASED.values() if one.kind == "backbone" and method in one.methods)


def weights_folder() -> Path:
    """Return where released weights lie: ``pretrained`` in the cache folder. It need not exist yet."""
    return cache_folder() / "pretrained"


def released(name: str) -> Released:
    """Return released weights by name; raises SegbenchError with the nearest names.

    Examples
    --------
    >>> released("stardist-2d-versatile-fluo").file
    'python_2D_versatile_fluo.zip'
    """
    if name not in RELEASED:
        raise unknown_name("weights", name, RELEASED)
    return RELEASED[name]


def check(path: Path, sha256: str | None, what: str) -> str:
    """Return the SHA-256 of a file; raises SegbenchError where it is not the expected one (None expects nothing)."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(sha256 or ""):
        raise SegbenchError(
            f"{what}: {path} is not the published file, or only a part of it: its SHA-256 is {found}, not {sha256}; "
            "remove it and get it again"
        )
    return found


def add(name: str, file: Path) -> str:
    """Copy a file to where released weights lie, once it is found to be the published one; returns its SHA-256.

    Raises
    ------
    SegbenchError
        An unknown name, no such file, or another file than the published one: nothing is kept then.
    """
    one = released(name)
    if not file.is_file():
        raise SegbenchError(f"there is no file {file}")
    with file.open("rb") as stream:
        return _keep(one, stream.read, None)


def fetch(name: str, progress: Callable[[int, int | None], None] | None = None) -> str:
    """Download released weights to where they lie, unless they are there; returns their SHA-256.

    Parameters
    ----------
    name
        One of ``RELEASED``.
    progress
        Told the bytes that have come and, where it is known, how many there are.

    Raises
    ------
    SegbenchError
        An unknown name, no network, a transfer that broke off, or another file than the published one: nothing is kept.
    """
    one = released(name)
    return check(one.verified(), None, name) if one.there() else download(one, progress)


def download(one: Released, progress: Callable[[int, int | None], None] | None = None) -> str:
    """Download weights to where they lie, as ``fetch``; returns their SHA-256."""
    try:
        with urllib.request.urlopen(one.url, timeout=_TIMEOUT_S) as answer:
            told = answer.headers.get("Content-Length")
            total = int(told) if told and told.isdigit() else None
            return _keep(one, answer.read, total, progress)
    except (OSError, urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SegbenchError(
            f"{one.url} cannot be fetched ({reason}): download it elsewhere and "
            f"'segbench methods weights add {one.name} FILE'"
        ) from None


def _keep(
    one: Released, read: Callable[[int], bytes], total: int | None,
    progress: Callable[[int, int | None], None] | None = None,
) -> str:  # fmt: skip
    one.path.parent.mkdir(parents=True, exist_ok=True)
    part = one.path.with_name(f".{one.file}.{os.getpid()}")  # several processes may fetch it at once
    came = 0
    try:
        with part.open("wb") as file:
            while block := read(_BLOCK):
                file.write(block)
                came += len(block)
                if progress is not None:
                    progress(came, total)
        if not came or (total is not None and came != total):
            raise SegbenchError(f"{one.name}: {came:,} bytes came of {total or 'an unknown number'}: nothing is kept")
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if not found.startswith(one.sha256 or ""):
            raise SegbenchError(
                f"{one.name}: this is not the published file, or only a part of it: its SHA-256 is {found}, "
                f"not {one.sha256}; nothing is kept"
            )
        write_whole(_note_of(one.path), json.dumps({"name": one.name, "url": one.url, "sha256": found}))
        part.replace(one.path)
    finally:
        part.unlink(missing_ok=True)
    return found


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
