"""Folders, stacks and tables as people have them are read, told of, or refused by file name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import segbench
from segbench.engine.files.tables import read_groups, read_scores
from segbench.errors import SegbenchError


def cells(seed: int = 0, size: tuple[int, int] = (64, 80)) -> Any:
    labels = np.zeros(size, np.uint16)
    for k, (y, x) in enumerate(((5, 5), (5, 40), (35, 20), (40, 55))):
        labels[y : y + 12 + seed % 3, x : x + 14] = k + 1
    return labels


def folder(path: Path, ending: str = "", **change: Any) -> Path:
    path.mkdir()
    for n in range(3):
        Image.fromarray(change.get(f"im{n}", cells(n))).save(path / f"im{n}{ending}.png")
    return path


def test_leftovers_of_macos_are_left_out_and_counted(tmp_path: Path) -> None:
    truth, found = folder(tmp_path / "t"), folder(tmp_path / "f")
    (found / "._im0.png").write_bytes(b"\0\5\26\7")
    result = segbench.evaluate(truth, found)
    assert result.pooled.map == 1.0
    assert result.notes == (f"{found}: 1 files whose names begin with ._ are left out",)


def test_what_cellpose_appends_to_names_does_not_part_pairs(tmp_path: Path) -> None:
    assert segbench.evaluate(folder(tmp_path / "t"), folder(tmp_path / "f", "_cp_masks")).pooled.map == 1.0


def test_a_map_of_another_size_is_named(tmp_path: Path) -> None:
    truth, found = folder(tmp_path / "t"), folder(tmp_path / "f", im1=cells(1, (63, 80)))
    with pytest.raises(SegbenchError, match=r"f/im1.png is \(63, 80\) \(height, width\), .*t/im1.png is \(64, 80\)"):
        segbench.evaluate(truth, found)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (cells().astype(np.int16) - 1, "im1.tif has labels from -1 to 3"),
        (cells() * np.float32(0.5), "im1.tif holds numbers that are not whole"),
        (np.stack([cells()] * 4 + [cells(1)]), r"im1.tif has shape \(5, 64, 80\)"),
    ],
)
def test_a_file_that_is_no_label_map_is_named(tmp_path: Path, array: Any, message: str) -> None:
    for side in ("t", "f"):
        (tmp_path / side).mkdir()
        for n in range(3):
            tifffile.imwrite(tmp_path / side / f"im{n}.tif", cells(n))
    tifffile.imwrite(tmp_path / "f" / "im1.tif", array)
    with pytest.raises(SegbenchError, match=message):
        segbench.evaluate(tmp_path / "t", tmp_path / "f")


def test_whole_floats_and_axes_of_one_are_labels(tmp_path: Path) -> None:
    truth = folder(tmp_path / "t")
    (tmp_path / "f").mkdir()
    for n, array in enumerate((cells(0).astype(np.float32), cells(1)[None], cells(2)[..., None])):
        np.save(tmp_path / "f" / f"im{n}.npy", array)
    assert segbench.evaluate(truth, tmp_path / "f").pooled.map == 1.0


def test_binary_masks_are_refused_and_can_be_numbered(tmp_path: Path) -> None:
    binary = {f"im{n}": ((cells(n) > 0) * 255).astype(np.uint8) for n in range(3)}
    truth, found = folder(tmp_path / "t", **binary), folder(tmp_path / "f", **binary)
    with pytest.raises(SegbenchError, match="--masks binary"):
        segbench.evaluate(truth, found)
    result = segbench.evaluate(truth, found, masks="binary")
    assert (result.pooled.n_truth, result.pooled.map) == (12, 1.0)


def test_predictions_beyond_the_limit_are_counted() -> None:
    many = np.arange(1, 101, dtype=np.int32).reshape(10, 10)
    found = segbench.evaluate(many, many, max_detections=60)
    assert found.notes == ("40 predictions of 1 image are beyond --max-detections 60: they are not scored",)
    assert segbench.evaluate(many, many).notes == ()


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


class TestTables:
    @pytest.mark.parametrize(
        ("text", "encoding"),
        [
            ("image,group\na.png,A\nt0.5h.png,B\n", "utf-8"),
            ("image,group\na.png,A\nt0.5h.png,B\n", "utf-8-sig"),
            ("image;group\r\na;A\r\nt0.5h;B\r\n", "utf-8"),
            ("image,tissue\nfolder/a.tif,A\nfolder\\t0.5h.ome.tif,B\n", "utf-8"),
        ],
    )
    def test_groups_are_read_as_spreadsheets_write_them(self, tmp_path: Path, text: str, encoding: str) -> None:
        assert read_groups(table(tmp_path / "g.csv", text, encoding), ["a", "t0.5h"]) == ["A", "B"]

    def test_an_image_with_two_rows_is_refused(self, tmp_path: Path) -> None:
        path = table(tmp_path / "g.csv", "image,group\na.png,A\ntrain/a.png,B\n")
        with pytest.raises(SegbenchError, match=r"line 3: image 'a' stands in line 2 already"):
            read_groups(path, ["a"])

    def test_another_encoding_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(SegbenchError, match="not UTF-8"):
            read_groups(table(tmp_path / "g.csv", "image,group\na,é\n", "latin-1"), ["a"])

    def test_labels_of_a_table_may_be_whole_floats(self, tmp_path: Path) -> None:
        path = table(tmp_path / "s.csv", "image,label,score\na,4.0,0.5\na,2,0.25\n")
        assert read_scores(path, ["a"])[0].tolist() == [0.25, 0.5]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("a,2,0.5\na,4,0.5\na,6,0.5\n", "scores 1 labels of image 'a' that its map lacks: 6"),
            ("a,2,0.5\n", "no score for 1 labels of image 'a': 4"),
            ("a,2,nan\na,4,1\n", "must be numbers"),
            ("a,2,inf\na,4,1\n", "must be finite"),
            ("a,2.5,1\na,4,1\n", "the label a whole one"),
            ("a,2,1\na,2,1\n", "two scores for label 2"),
            ("b,2,1\n", "not among the label maps"),
        ],
    )
    def test_scores_that_do_not_fit_are_refused(self, tmp_path: Path, rows: str, message: str) -> None:
        path = table(tmp_path / "s.csv", f"image,label,score\n{rows}")
        with pytest.raises(SegbenchError, match=message):
            read_scores(path, ["a"], lambda _: np.array([2, 4]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_detections": 1.5}, "max_detections is 1.5"),
        ({"max_detections": True}, "max_detections is True"),
        ({"max_detections": 10**30}, "give at most"),
        ({"areas": {"a": (5, 1)}}, "smallest and largest area"),
        ({"areas": {"a": 3}}, "smallest and largest area"),
        ({"areas": {"all": (0, 1)}}, "a name other than 'all'"),
        ({"masks": "colour"}, "masks='colour' is for picture files"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        segbench.evaluate(cells(), cells(), **options)


def test_a_masked_array_is_refused_rather_than_read_without_its_mask() -> None:
    with pytest.raises(SegbenchError, match="truth is a masked array"):
        segbench.evaluate(np.ma.masked_array(cells(), cells() == 1), cells())


def test_binary_arrays_are_numbered_as_files_are() -> None:
    binary = cells() > 0
    assert segbench.evaluate(binary, binary, masks="binary").pooled.n_truth == 4
    assert segbench.evaluate([binary], [binary], masks="binary").pooled.n_truth == 4


def test_what_erosion_takes_away_is_not_said_to_be_beyond_the_limit() -> None:
    swept = segbench.sweep(cells(), cells(), erode=[0, 30])
    assert swept["erode", 30].pooled.n_predictions == 0
    assert swept["erode", 30].notes == ()
