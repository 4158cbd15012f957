"""StarDist's weights before training: drawn, a released model or one of a folder or .zip."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.methods.start import Start
from segbench.methods.weights import RELEASED

RANDOM = "random"
_RELEASED = {"2D_versatile_fluo": "stardist-2d-versatile-fluo", "2D_paper_dsb2018": "stardist-2d-paper-dsb2018"}
START = Start(
    "start",
    random=RANDOM,
    generalist={"": "2D_versatile_fluo"},
    weights={model: (name,) for model, name in _RELEASED.items()},
    most_channels=dict.fromkeys(_RELEASED, 1),
)
"""What a grid's ``start`` means for StarDist."""
_CONFIG, _WEIGHTS, _THRESHOLDS = "config.json", "weights_best.h5", "thresholds.json"
_MOST_BYTES = 1 << 30
_OWN = ("train_", "n_dim", "axes", "use_gpu")
"""Beginnings of what a configuration says of training, and of the machine that it was made on."""


@dataclass(frozen=True)
class FirstModel:
    """A model of StarDist, unpacked."""

    folder: Path
    network: Mapping[str, Any]
    """What ``Config2D`` needs to build the same network."""

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return self.folder / _WEIGHTS


def unpack(start: str, work: Path, n_channels: int) -> FirstModel:
    """Copy the model that a setting ``start`` names into a work folder; only its three files, whatever else is there.

    Parameters
    ----------
    start
        A released model's name, or the path of a model's folder or of its .zip.
    work
        Where the copy goes; made if missing.
    n_channels
        Of the task.

    Raises
    ------
    SegbenchError
        It is not there, is no model of StarDist2D, or takes another number of channels.
    """
    source = RELEASED[_RELEASED[start]].verified() if start in _RELEASED else Path(start).expanduser()
    if not source.exists():
        raise SegbenchError(
            f"setting start is {start!r}, which is no file; it is random, {', '.join(_RELEASED)} or a path"
        )
    folder = work / "start"
    folder.mkdir(parents=True)
    try:
        _copy(source, folder)
        config = json.loads((folder / _CONFIG).read_text())
        network = {key: value for key, value in config.items() if not key.startswith(_OWN)}
        found = int(config["n_channel_in"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise SegbenchError(f"{source} is no model of StarDist2D: {error}") from None
    if found != n_channels:
        raise SegbenchError(f"the model {source.name} takes {found} channel(s), the task has {n_channels}")
    return FirstModel(folder, network)


def _copy(source: Path, folder: Path) -> None:
    if source.is_dir():
        for name in (_CONFIG, _WEIGHTS):
            shutil.copyfile(source / name, folder / name)
        if (source / _THRESHOLDS).is_file():
            shutil.copyfile(source / _THRESHOLDS, folder / _THRESHOLDS)
        return
    with zipfile.ZipFile(source) as archive:
        held = {Path(one.filename).name: one for one in archive.infolist() if len(Path(one.filename).parts) <= 2}
        for name in (_CONFIG, _WEIGHTS, _THRESHOLDS):
            if name not in held:
                if name == _THRESHOLDS:
                    continue
                raise ValueError(f"it has no {name}")
            if held[name].file_size > _MOST_BYTES:
                raise ValueError(f"its {name} is larger than {_MOST_BYTES} bytes")
            with archive.open(held[name]) as inside, (folder / name).open("wb") as file:
                shutil.copyfileobj(inside, file)
