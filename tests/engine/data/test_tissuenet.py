"""TissueNet's archives are read as they are distributed, streamed, and without running pickles."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.engine.data import DatasetSpec, PreparationSettings, ensure_prepared
from segbench.engine.data.npz import Archive
from segbench.engine.data.tissuenet import TissuenetSource
from segbench.errors import SegbenchError

WriteTissuenet = Callable[..., Path]
STUDY = ["Breast", "Lymph Node Metastasis", "Lung"]


@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
def test_both_versions_are_read(write_tissuenet: WriteTissuenet, version: str) -> None:
    folder = write_tissuenet(version)
    source = TissuenetSource(folder, {})
    assert dict(source.counts()) == {"train": 3, "val": 3, "test": 3}
    images = [load() for load in source.images("train")]
    assert [image.tissue for image in images] == STUDY
    assert [image.image for image in images] == ["train-00000", "train-00001", "train-00002"]
    with np.load(folder / f"tissuenet_{version}_train.npz", allow_pickle=True) as stored:
        np.testing.assert_array_equal(images[1].pixels, np.moveaxis(stored["X"][1], -1, 0))
        np.testing.assert_array_equal(images[1].labels["wholecell"], stored["y"][1, ..., 0])
        np.testing.assert_array_equal(images[1].labels["nuclear"], stored["y"][1, ..., 1])


@pytest.mark.slow
def test_training_images_of_512_and_test_images_of_256_become_windows(
    write_tissuenet: WriteTissuenet, cache: Path
) -> None:
    spec = DatasetSpec("t", "tissuenet", str(write_tissuenet(sizes=(512, 256))), {"pixel_size_um": 0.5})
    prepared = ensure_prepared(spec)
    assert prepared.index("train").group_by("image").len()["len"].max() == 9
    assert prepared.index("test").height == 3
    assert prepared.folder.is_relative_to(cache)
    assert prepared.pixel_size_um == 0.5
    assert prepared.tissues("train") == ("Breast", "Lung", "Lymph Node Metastasis")
    nuclei = np.load(prepared.labels_path("train", "nuclear"))
    cells = np.load(prepared.labels_path("train", "wholecell"))
    assert (cells[nuclei > 0] > 0).all()
    assert 0 < nuclei.max() < cells.max()
    dropped = DatasetSpec("t", "tissuenet", spec.source, {}, PreparationSettings(edge="drop"))
    assert ensure_prepared(dropped).index("train").group_by("image").len()["len"].max() == 4


def test_tissues_may_be_objects_and_bytes(write_tissuenet: WriteTissuenet) -> None:
    for n, tissues in enumerate(
        (np.array(STUDY, object), np.array(STUDY, "S"), np.array([np.str_(t) for t in STUDY], object))
    ):
        folder = write_tissuenet(f"v1.0-{n}", tissue_list=tissues, meta=None)
        assert [load().tissue for load in TissuenetSource(folder, {}).images("test")] == STUDY


class _Attack:
    def __reduce__(self) -> Any:
        return os.mkdir, ("attacked",)


def test_a_pickle_that_would_run_something_is_refused_unrun(
    write_tissuenet: WriteTissuenet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tissuenet(tissue_list=np.array([_Attack()] * 3, object))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SegbenchError, match=r"'tissue_list' is refused: its pickle asks for (posix|os|nt).mkdir"):
        TissuenetSource(folder, {})
    assert not Path("attacked").exists()


def test_other_pickles_are_refused(tmp_path: Path) -> None:
    for name, payload in (
        ("not-array", pickle.dumps([1, 2])),
        ("cut", pickle.dumps(np.array(["a"], object))[:20]),
        ("junk", b"junk"),
        # an array of objects whose pointers the file would choose, and a data type that says what it is not
        ("pointers", b"cnumpy\nndarray\n((I2\ntcnumpy\ndtype\n(S'O'\ntRS'" + b"A" * 16 + b"'\ntR."),
        ("dtype", b"cnumpy\ndtype\n(S'i8'\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb."),
    ):
        path = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(path, "w") as archive:
            header = np.array([None], object)
            with archive.open("a.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(header))
                file.write(payload)
        with Archive(path) as archive_, pytest.raises(SegbenchError, match=f"{name}.npz: array 'a' is refused"):
            archive_.small("a")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"X": None}, "has no array 'X'; it has y, tissue_list, platform_list"),
        ({"y": None}, "has no array 'y'; it has X, tissue_list, platform_list"),
        ({"tissue_list": None}, "neither tissue_list nor meta; it has X, y, platform_list"),
        ({"tissue_list": np.array(["Lung"])}, "3 images and 1 tissues"),
        ({"tissue_list": np.array(["Lung", "all", "Lung"])}, "a tissue is named 'all'"),
        ({"tissue_list": None, "meta": np.array([["a", "b"], ["1", "2"]])}, "meta has no column specimen"),
        ({"X": np.zeros((3, 8, 8, 3), np.float32)}, r"X must be numbers \(N, H, W, 2\)"),
        ({"y": np.zeros((3, 8, 8, 2), int)}, "y must be labels"),
        ({"X": np.full((3, 8, 8, 2), "a")}, "X must be numbers"),
    ],
)
def test_a_wrong_archive_is_told_with_what_it_has(
    write_tissuenet: WriteTissuenet, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(SegbenchError, match=why):
        TissuenetSource(write_tissuenet(**changes), {})


@pytest.mark.parametrize(
    ("plane", "why"),
    [
        (np.full((3, 64, 64, 2), -4), "must be 0 .background. or above, found -4"),
        (np.full((3, 64, 64, 2), 0.5), "whole numbers"),
    ],
)
def test_wrong_labels_are_told_with_the_image(
    write_tissuenet: WriteTissuenet, cache: Path, plane: Any, why: str
) -> None:
    folder = write_tissuenet(splits=("train",), y=plane, X=np.ones((3, 64, 64, 2), np.float32))
    (folder / "tissuenet_v1.0_test.npz").write_bytes((folder / "tissuenet_v1.0_train.npz").read_bytes())
    with pytest.raises(SegbenchError, match=f"dataset 't': train-00000 .*{why}"):
        ensure_prepared(DatasetSpec("t", "tissuenet", str(folder)))
    assert not cache.exists()


def test_nan_pixels_are_told_with_the_image(write_tissuenet: WriteTissuenet, cache: Path) -> None:
    pixels = np.ones((3, 64, 64, 2), np.float32)
    pixels[1, 5, 5, 0] = np.nan
    folder = write_tissuenet(splits=("train",), X=pixels, y=np.ones((3, 64, 64, 2), int))
    (folder / "tissuenet_v1.0_test.npz").write_bytes((folder / "tissuenet_v1.0_train.npz").read_bytes())
    with pytest.raises(SegbenchError, match="train-00001: the image holds NaN"):
        ensure_prepared(DatasetSpec("t", "tissuenet", str(folder)))
    assert not cache.exists()


def test_integral_float_labels_and_high_labels_are_read(write_tissuenet: WriteTissuenet, cache: Path) -> None:  # noqa: ARG001
    high = np.zeros((3, 64, 64, 2), np.float64)
    high[:, 10:20, 10:20], high[:, 30:40, 30:40] = 70_000, 2**31 + 5
    folder = write_tissuenet(splits=("train", "test"), X=np.random.default_rng(0).random((3, 64, 64, 2)), y=high)
    prepared = ensure_prepared(DatasetSpec("t", "tissuenet", str(folder)))
    labels = np.load(prepared.labels_path("train", "wholecell"))
    assert [labels[0, 15, 15], labels[0, 35, 35], labels.max()] == [1, 2, 2]


def test_a_truncated_archive_is_told(write_tissuenet: WriteTissuenet) -> None:
    folder = write_tissuenet()
    path = folder / "tissuenet_v1.0_val.npz"
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(SegbenchError, match=r"tissuenet_v1.0_val.npz is not a whole .npz file"):
        TissuenetSource(folder, {})


def test_a_damaged_member_is_told(write_tissuenet: WriteTissuenet, cache: Path) -> None:
    folder = write_tissuenet()
    path = folder / "tissuenet_v1.0_train.npz"
    data = bytearray(path.read_bytes())
    for at in range(20_000, 20_400):
        data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SegbenchError, match=r"tissuenet_v1.0_train.npz: array 'X' cannot be read"):
        ensure_prepared(DatasetSpec("t", "tissuenet", str(folder)))
    assert not cache.exists()


@pytest.mark.parametrize(("missing", "why"), [("train", "no .npz file for train"), ("test", "no .npz file for test")])
def test_a_missing_split_is_told(write_tissuenet: WriteTissuenet, missing: str, why: str) -> None:
    folder = write_tissuenet(splits=[s for s in ("train", "val", "test") if s != missing])
    with pytest.raises(SegbenchError, match=why):
        TissuenetSource(folder, {})


def test_two_files_for_a_split_are_told(write_tissuenet: WriteTissuenet) -> None:
    folder = write_tissuenet()
    (folder / "other_train.npz").write_bytes((folder / "tissuenet_v1.0_train.npz").read_bytes())
    with pytest.raises(SegbenchError, match=r"2 .npz files for train: other_train.npz, tissuenet_v1.0_train.npz"):
        TissuenetSource(folder, {})


_STREAM = """
import resource, sys
from pathlib import Path
from segbench.engine.data.npz import Archive
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Archive(Path(sys.argv[1])) as archive:
    total = sum(float(row[0, 0, 0]) for row in archive.rows("X"))
print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_array_is_never_held_whole(tmp_path: Path) -> None:
    n = 256
    with (
        zipfile.ZipFile(tmp_path / "big.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("X.npy", "w", force_zip64=True) as file,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, 512, 512, 2)}
        np.lib.format.write_array_header_1_0(file, header)
        row = np.ones((512, 512, 2), np.float32).tobytes()
        for _ in range(n):
            file.write(row)
    command = [sys.executable, "-c", _STREAM, str(tmp_path / "big.npz")]
    total, grown_kb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert float(total) == n
    # the array is 537 MB, one row 2 MB
    assert float(grown_kb) < 60_000
