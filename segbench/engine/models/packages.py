"""A package, opened: unpacked and checked before anything of it is believed, so that nothing in it is ever run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from segbench.engine.files.archives import read_member, unpack
from segbench.engine.files.limits import check_npy
from segbench.engine.files.weights import check_weights
from segbench.engine.models.facts import FACTS, ModelFacts
from segbench.engine.models.trained import MODEL, TrainedModel, read_description, write_description
from segbench.errors import SegbenchError
from segbench.methods.predictions import PredictionSet

RDF = "bioimageio.yaml"
README = "README.md"
LOCK = "environment.lock.txt"
TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"
SAMPLE_INPUT, SAMPLE_OUTPUT = "sample_input.tif", "sample_output.tif"
"""The same as pictures, for people."""
EXPECTED = "expected"
"""The folder of what the method predicts for the test input, as a run keeps its predictions."""
FILES = "files"
"""Files of this machine that settings named: they come along."""
COVER = "cover.png"
EXAMPLES = "test-windows.npz"
WEIGHTS = "weights"
"""The folder of the weights in other programs' formats; segbench itself never loads these."""
PACKED = "package:"
"""How a setting in a package names a file of the package."""


@dataclass(frozen=True)
class Package:
    """An unpacked package, whose files are what its list of checksums says and whose weights are data."""

    folder: Path
    model: TrainedModel
    facts: ModelFacts

    def test_input(self) -> Any:
        """Return the test window (1, C, H, W), memory-mapped."""
        return _array(self.folder / TEST_INPUT, 4)

    def expected(self) -> PredictionSet:
        """Return what the method is to predict for it."""
        try:
            return PredictionSet(self.folder / EXPECTED)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SegbenchError(f"the package has no expected output that can be read: {error}") from None


def facts_of(path: Path) -> ModelFacts:
    """Return the facts of a package file; nothing is unpacked."""
    return ModelFacts.read(read_member(path, FACTS), str(path))


def unpack_package(path: Path, folder: Path) -> Package:
    """Unpack a package into a new folder and open it there; the folder is not left where the package is refused.

    Raises
    ------
    SegbenchError
        The file is no package, is damaged or hostile, or its method is not here; one line.
    """
    import shutil

    unpack(path, folder)
    try:
        return open_folder(folder, str(path))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def opened(path: Path) -> Iterator[Package]:
    """Give a package's content while the block runs; raises as ``unpack_package``."""
    with TemporaryDirectory(prefix="segbench-package-") as scratch:
        yield unpack_package(path, Path(scratch) / "package")


def open_folder(folder: Path, where: str) -> Package:
    """Open an unpacked package: its weights are checked, and settings that name its files get their path here."""
    for part in (MODEL, FILES):
        if (folder / part).is_dir():
            check_weights(folder / part)
    facts_file = folder / FACTS
    if not facts_file.is_file():
        raise SegbenchError(f"{where} is no package of segbench: it holds no {FACTS}")
    facts = ModelFacts.read(facts_file.read_bytes(), where)
    model = read_description(folder)
    settings = _placed(model.settings, folder)
    if settings != dict(model.settings):
        model = dataclasses.replace(model, settings=settings)
        write_description(model, folder)
    return Package(folder, model, facts)


def _placed(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings with the paths of a package's own files; a path of anybody's machine is refused."""
    placed = {}
    for name, value in settings.items():
        if isinstance(value, str) and value.startswith(PACKED):
            path = folder / FILES / value.removeprefix(PACKED)
            if path.parent != folder / FILES or not path.is_file():
                raise SegbenchError(f"setting {name} names a file that is not in the package: {value[:80]!r}")
            placed[name] = str(path.absolute())
        elif (
            isinstance(value, str) and value.startswith(("/", "~")) and Path(value).parent != folder.absolute() / FILES
        ):
            raise SegbenchError(f"setting {name} names a file outside the package: {value[:80]!r}")
        else:
            placed[name] = value
    return placed


def _array(path: Path, dimensions: int) -> Any:
    try:
        check_npy(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SegbenchError(f"{path.name} of the package cannot be read: {error}") from None
    if array.ndim != dimensions:
        raise SegbenchError(f"{path.name} of the package has {array.ndim} dimensions, expected {dimensions}")
    return array
