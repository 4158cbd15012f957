"""Annotations of other tools become a folder dataset; what is dropped is told, and what fails leaves nothing behind."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from roifile import ROI_TYPE, ImagejRoi

from segbench.engine.data.folder import FolderSource
from segbench.engine.data.importing import KINDS, Imported, ImportOptions, import_annotations
from segbench.engine.data.importing.recognition import recognised_kind
from segbench.engine.data.importing.splits import divided
from segbench.engine.files.masks import Masks
from segbench.engine.files.writers import write_coco, write_geojson, write_label_tiff, write_rois, write_seg_npy
from segbench.errors import SegbenchError

SHAPE = (24, 32)


def cells(seed: int = 0) -> npt.NDArray[np.int32]:
    """Return a label map of rectangles, one of them with a hole, one in two pieces, numbered from 1."""
    labels = np.zeros(SHAPE, np.int32)
    labels[2 : 8 + seed % 3, 3:10], labels[4, 5] = 1, 0
    labels[2:9, 10:14] = 2
    labels[15:20, 20:28], labels[21, 28] = 3, 3
    return labels


def picture(path: Path, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)).save(path)
    return path


def write_all(kind: str, root: Path, maps: Mapping[str, npt.NDArray[np.int32]]) -> None:
    """Write images and their annotations below a folder, laid out as the kind has them."""
    if kind == "coco":
        write_coco(root / "annotations.json", ((f"{name}.png", labels) for name, labels in maps.items()))
    for n, (name, labels) in enumerate(maps.items()):
        own = root / name
        picture(own / "images" / f"{name}.png" if kind == "instances" else root / f"{name}.png", n)
        if kind == "geojson":
            write_geojson(root / f"{name}.geojson", labels)
        elif kind == "imagej":
            write_rois(root / f"RoiSet_{name}.zip", labels)
        elif kind == "cellpose":
            write_seg_npy(root / f"{name}_seg.npy", labels, f"{name}.png")
        elif kind == "suffix":
            write_label_tiff(root / f"{name}_masks.tif", labels)
        elif kind == "instances":
            (own / "masks").mkdir()
            for number in np.unique(labels[labels > 0]):
                mask = ((labels == number) * 255).astype(np.uint8)
                Image.fromarray(mask).save(own / "masks" / f"{number}.png")


def index(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open() as file:
        return list(csv.DictReader(file))


def masks_of(folder: Path) -> dict[str, npt.NDArray[Any]]:
    return {Path(row["image"]).stem: tifffile.imread(folder / row["mask"]) for row in index(folder)}


Import = Callable[..., Imported]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path, root: Path) -> Import:
    """Return a function that imports what lies below ``root`` into ``cells``."""

    def importer(kind: str, path: Path = root, **options: Any) -> Imported:
        return import_annotations(kind, path, tmp_path / "cells", ImportOptions(**options))

    return importer


# Every kind


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_and_imported_loses_no_pixel(kind: str, root: Path, run: Import) -> None:
    wanted = {name: cells(n) for n, name in enumerate("abcd")}
    write_all(kind, root, wanted)
    imported = run(kind)
    # what was drawn is not suspected; a label map is, and its pieces stay
    pieces = "4 of 4 masks have labels in several pieces (a_"
    assert [note[: len(pieces)] for note in imported.notes] == ([pieces] if kind in ("cellpose", "suffix") else [])
    assert sum(int(row["cells"]) for row in imported.rows) == 12
    found = masks_of(imported.folder)
    assert found.keys() == wanted.keys()
    for name, labels in wanted.items():
        np.testing.assert_array_equal(found[name], labels)
        written = imported.folder / "images" / f"{name}.png"
        assert written.read_bytes() == next(root.rglob(f"{name}.png")).read_bytes()
    source = FolderSource(imported.folder, {})
    assert sum(source.counts().values()) == 4
    assert [load().labels["cell"].max() for load in source.images("test")] == [3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_an_index_names_the_command_for_its_kind(kind: str, root: Path) -> None:
    write_all(kind, root, {"a": cells()})
    with pytest.raises(SegbenchError, match=rf"index\.csv does not exist.*segbench data import {kind} .*given --to"):
        FolderSource(root, {})


def test_a_folder_of_nothing_known_names_the_command(root: Path) -> None:
    picture(root / "a.png")
    assert recognised_kind(root) is None
    with pytest.raises(SegbenchError, match=r"Annotations of other tools become one: segbench data import KIND"):
        FolderSource(root, {})


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_import_leaves_nothing_behind(kind: str, root: Path, tmp_path: Path, run: Import) -> None:
    write_all(kind, root, {"a": cells(), "b": cells()})
    for image in root.rglob("b.png"):
        image.write_bytes(image.read_bytes()[:60])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SegbenchError, match=r"b\.png"):
        run(kind)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(SegbenchError, match=r"b\.png"):
        import_annotations(kind, root, tmp_path / "new" / "deep" / "cells")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_annotations_of_another_size_name_both_files(kind: str, root: Path, run: Import) -> None:
    write_all(kind, root, {"a": cells()})
    image = picture(next(root.rglob("a.png")), shape=(30, 40))
    if kind in ("geojson", "imagej"):
        picture(image, shape=(1, 1))
        with pytest.raises(SegbenchError, match=r"given: all 3 cells lie outside"):
            run(kind)
    else:
        with pytest.raises(SegbenchError, match=r"\(30, 40\).*\(24, 32\)|\(24, 32\).*\(30, 40\)") as error:
            run(kind)
        assert "a.png" in str(error.value) or kind == "instances"


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_partner_is_counted(kind: str, root: Path, run: Import) -> None:
    write_all(kind, root, {"a": cells(), "b": cells(), "c": cells()})
    next(root.rglob("c.png")).unlink()
    beside = "lonely/images" if kind == "instances" else "."
    picture(root / beside / "lonely.png")
    (root / "._a.png").write_bytes(b"\0")
    notes = "\n".join(run(kind).notes)
    assert "1 hidden files" in notes
    assert "1 of 3 annotations have no image" in notes
    if kind == "coco":
        assert "1 images below" in notes
        assert "are not listed (lonely.png): left out" in notes
    else:
        assert "1 of 3 images have no annotations" in notes


def test_nothing_is_overwritten(root: Path, tmp_path: Path, run: Import) -> None:
    write_all("suffix", root, {"a": cells(), "b": cells()})
    kept = tmp_path / "cells" / "mine.txt"
    kept.parent.mkdir()
    run("suffix")  # an empty folder is none to lose
    kept.write_text("mine")
    with pytest.raises(SegbenchError, match=r"cells exists already; choose another folder for --to"):
        run("suffix")
    assert kept.read_text() == "mine"


def test_options_of_other_kinds_are_refused(run: Import) -> None:
    for kind, option, value in (
        ("coco", "pattern", "{}.png"),
        ("geojson", "masks", Masks.BINARY),
        ("imagej", "nuclei", True),
    ):
        with pytest.raises(SegbenchError, match=rf"--{option} is for kind .*, not {kind}"):
            run(kind, **{option: value})
    with pytest.raises(SegbenchError, match="unknown kind of annotations 'cocoo'; did you mean coco"):
        run("cocoo")


# Finding the images


def test_images_lie_apart(root: Path, tmp_path: Path, run: Import) -> None:
    for n, place in enumerate(("lung/x.ome.tif", "skin/x.ome.tif")):
        (tmp_path / "photos" / place).parent.mkdir(parents=True)
        tifffile.imwrite(tmp_path / "photos" / place, np.full(SHAPE, n, np.uint8))
        (root / Path(place).parent).mkdir()
        write_geojson(root / f"{place}.geojson", cells(n))
    imported = run("geojson", images=tmp_path / "photos", tissue="folder:1")
    assert {(row["image"], row["tissue"]) for row in index(imported.folder)} == {
        ("images/lung/x.ome.tif", "lung"),
        ("images/skin/x.ome.tif", "skin"),
    }
    np.testing.assert_array_equal(tifffile.imread(imported.folder / "masks/skin/x.tif"), cells(1))


def test_one_file_for_one_image_needs_no_name_in_common(root: Path, tmp_path: Path, run: Import) -> None:
    write_rois(root / "RoiSet.zip", cells())
    imported = run("imagej", root / "RoiSet.zip", images=picture(tmp_path / "field 7.png"))
    assert masks_of(imported.folder).keys() == {"field 7"}
    assert "no image stands in test, which a dataset needs: train 1" in imported.notes


def test_roi_files_of_one_image_lie_in_a_folder_of_its_name(root: Path, run: Import) -> None:
    picture(root / "a.png")
    picture(root / "b.png", 1)
    write_rois(root / "a.zip", cells())
    with zipfile.ZipFile(root / "a.zip") as archive:
        archive.extractall(root / "a_rois")
    (root / "a.zip").unlink()
    square = ImagejRoi(roitype=ROI_TYPE.RECT, left=1, top=2, right=5, bottom=6)
    (root / "b.roi").write_bytes(square.tobytes())
    found = masks_of(run("imagej").folder)
    np.testing.assert_array_equal(found["a"], cells())
    assert found["b"].sum() == 16


def test_masks_lie_in_a_folder_beside_that_of_the_images(root: Path, run: Import) -> None:
    for n, split in enumerate(("train", "test")):
        picture(root / split / "images" / "1.png", n)
        (root / split / "labels").mkdir()
        write_label_tiff(root / split / "labels" / "1.tif", cells(n))
    imported = run("suffix")
    assert [(row["image"], row["split"]) for row in index(imported.folder)] == [
        ("images/test/1.png", "test"),
        ("images/train/1.png", "train"),
    ]
    assert "the split of the folders is kept: test 1, train 1" in imported.notes


def test_the_names_of_published_datasets_are_paired(root: Path, run: Import) -> None:
    for n, (image, mask) in enumerate((("000_img.png", "000_masks.tif"), ("image_1.png", "1_label.tif"))):
        picture(root / image, n)
        write_label_tiff(root / mask, cells(n))
    found = masks_of(run("suffix").folder)
    np.testing.assert_array_equal(found["000_img"], cells(0))
    np.testing.assert_array_equal(found["image_1"], cells(1))


def test_slides_are_pictures_and_label_maps_beside_them_are_not(root: Path, run: Import) -> None:
    tifffile.imwrite(root / "a.svs", np.zeros(SHAPE, np.uint8))
    for name in ("a_seg.npy", "b_seg.npy"):
        write_seg_npy(root / name, cells(), "a.svs")
    picture(root / "b.png")
    write_label_tiff(root / "b_cp_masks.tif", cells())
    imported = run("cellpose", keep_empty=True)
    assert [row["image"] for row in index(imported.folder)] == ["images/a.svs", "images/b.png"]


def test_a_pattern_says_which_files_are_annotations(root: Path, run: Import) -> None:
    for name in "ab":
        picture(root / f"{name}.png")
        write_label_tiff(root / f"{name}_masks.tif", cells())
        write_label_tiff(root / f"{name}-cells.tif", 2 * cells())
    found = masks_of(run("suffix", pattern="{}-cells.tif").folder)
    np.testing.assert_array_equal(found["a"], 2 * cells())


def test_two_masks_for_an_image_and_two_images_for_a_mask_are_refused(root: Path, run: Import) -> None:
    picture(root / "a.png")
    for ending in ("_masks", "_label"):
        write_label_tiff(root / f"a{ending}.tif", cells())
    with pytest.raises(SegbenchError, match=r"a\.png has two annotations, a_label\.tif and a_masks\.tif"):
        run("suffix")
    (root / "a_label.tif").unlink()
    picture(root / "a.jpg")
    with pytest.raises(SegbenchError, match=r"a_masks\.tif may belong to several images: a\.jpg, a\.png"):
        run("suffix")


def test_masks_of_the_dsb_beside_images_apart(root: Path, tmp_path: Path, run: Import) -> None:
    write_all("instances", root, {"a": cells(), "b": cells(1)})
    for name in "ab":
        (root / name / "images" / f"{name}.png").unlink()
        picture(tmp_path / "photos" / f"{name}.png")
    found = masks_of(run("instances", images=tmp_path / "photos").folder)
    np.testing.assert_array_equal(found["b"], cells(1))


def test_a_label_map_is_no_mask_of_one_cell(root: Path, run: Import) -> None:
    write_all("instances", root, {"a": cells()})
    write_label_tiff(root / "a" / "masks" / "all.tif", cells())
    with pytest.raises(SegbenchError, match=r"all\.tif has the numbers 1 and 2.*kind suffix"):
        run("instances")


def test_binary_masks_are_refused_and_numbered_where_asked_for(root: Path, run: Import) -> None:
    write_all("suffix", root, {"a": (cells() > 0).astype(np.int32), "b": (cells() > 0).astype(np.int32)})
    with pytest.raises(SegbenchError, match="--masks binary"):
        run("suffix")
    assert masks_of(run("suffix", masks=Masks.BINARY).folder)["a"].max() == 3


def test_labels_beyond_16_bits_keep_their_numbers(root: Path, run: Import) -> None:
    write_all("suffix", root, {"a": cells() * 70_000, "b": cells()})
    found = masks_of(run("suffix").folder)
    np.testing.assert_array_equal(found["a"], cells() * 70_000)
    assert (found["a"].dtype, found["b"].dtype) == (np.uint32, np.uint16)


# COCO


def coco(root: Path, names: list[str], annotations: list[dict[str, Any]]) -> Path:
    height, width = SHAPE
    images = [{"id": n, "file_name": name, "height": height, "width": width} for n, name in enumerate(names)]
    usual = {"image_id": 0, "category_id": 1, "iscrowd": 0}
    listed = [usual | {"id": n} | one for n, one in enumerate(annotations)]
    path = root / "annotations.json"
    path.write_text(json.dumps({"images": images, "categories": [{"id": 1}, {"id": 2}], "annotations": listed}))
    return path


def box(left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
    return {"segmentation": [[left, top, right, top, right, bottom, left, bottom]]}


def test_what_a_label_map_cannot_show_is_told(root: Path, run: Import) -> None:
    picture(root / "a.png")
    annotations = [
        box(2, 2, 12, 12),
        box(4, 4, 6, 6),
        box(15, 2, 25, 12),
        box(15, 2, 25, 11),
        box(-20, 2, -10, 12),
        box(1.1, 20.1, 1.2, 20.2),
        box(2, 15, 12, 20) | {"iscrowd": 1},
        box(20, 15, 22, 20) | {"category_id": 2},
    ]
    imported = run("coco", coco(root, ["a.png"], annotations))
    told = "\n".join(imported.notes)
    for line in (
        "1 of 7 cells lie outside of their images: left out",
        "1 of 7 outlines draw no pixel: left out",
        "1 of 7 cells are outlined twice: the first outline is kept",
        "1 of 7 cells lie under others, smaller ones on top: they lost 4.0% of their pixels, 0 of them all",
        "1 crowd regions (iscrowd): left out",
        "cells of 2 categories are taken for cells alike",
    ):
        assert line in told
    (found,) = masks_of(imported.folder).values()
    assert sorted(np.unique(found, return_counts=True)[1][1:].tolist()) == [4, 10, 96, 100]


def test_listed_images_without_cells_are_left_out_unless_kept(root: Path, tmp_path: Path, run: Import) -> None:
    path = coco(root, ["a.png", "b.png"], [box(2, 2, 12, 12)])
    picture(root / "a.png")
    picture(root / "b.png")
    assert "1 of 2 images have no annotations (b.png): left out (--keep-empty keeps them)" in run("coco", path).notes
    kept = import_annotations("coco", path, tmp_path / "kept", ImportOptions(keep_empty=True))
    assert not masks_of(kept.folder)["b"].any()
    assert "1 of 2 images have no annotations (b.png): kept as images without cells" in kept.notes


def test_a_path_in_json_never_leads_out_of_the_images_folder(root: Path, tmp_path: Path, run: Import) -> None:
    picture(tmp_path / "secret.png")
    for name in ("../secret.png", "..\\secret.png", str(tmp_path / "secret.png"), "C:\\secret.png"):
        with pytest.raises(SegbenchError, match=r"annotations\.json names an image outside of its folder.*secret\.png"):
            run("coco", coco(root, [name], [box(2, 2, 12, 12)]))
    # a path of another machine is the image of that name
    picture(root / "sub" / "secret.png")
    assert run("coco", coco(root, ["/home/x/secret.png"], [box(2, 2, 12, 12)])).notes[0].startswith("no image stands")


def test_images_of_one_name_are_told_apart_by_their_folders(root: Path, tmp_path: Path, run: Import) -> None:
    for tissue in ("lung", "skin"):
        picture(root / "images" / tissue / "1.png")
    path = coco(root, ["data/skin/1.png"], [box(2, 2, 12, 12)])
    assert [row["image"] for row in index(run("coco", path).folder)] == ["images/skin/1.png"]
    with pytest.raises(SegbenchError, match=r"annotations\.json may belong to several images"):
        import_annotations("coco", coco(root, ["1.png"], [box(2, 2, 12, 12)]), tmp_path / "other")


def test_an_image_listed_twice_is_two_in_one_split(root: Path, run: Import) -> None:
    for n in range(6):
        picture(root / f"{n}.png", n)
    names = [f"{n}.png" for n in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)]
    path = coco(root, names, [box(2, 2, 12, 12) | {"image_id": n} for n in range(12)])
    rows = index(run("coco", path).folder)
    assert {row["image"] for row in rows} == {f"images/{n}{again}.png" for n in range(6) for again in ("", "-2")}
    splits = {row["image"]: row["split"] for row in rows}
    assert all(splits[f"images/{n}.png"] == splits[f"images/{n}-2.png"] for n in range(6))


def test_the_split_of_several_json_files_is_kept(root: Path, run: Import) -> None:
    for split in ("train", "valid", "test"):
        picture(root / split / "1.jpg", shape=SHAPE)
        coco(root / split, ["1.jpg"], [box(2, 2, 12, 12)])
    rows = index(run("coco").folder)
    assert {row["image"]: row["split"] for row in rows} == {
        "images/train/1.jpg": "train",
        "images/valid/1.jpg": "val",
        "images/test/1.jpg": "test",
    }


# Splits


def many(root: Path, places: list[str]) -> None:
    for n, place in enumerate(places):
        picture(root / f"{place}.png", n)
        write_label_tiff(root / f"{place}_mask.tif", cells())


def test_no_group_stands_in_two_splits_and_each_split_has_images(root: Path, run: Import) -> None:
    many(root, [f"slide{n % 5}_{n}" for n in range(20)])
    imported = run("suffix", group_by="regex:^(slide.)", split={"train": 0.6, "val": 0.2, "test": 0.2})
    rows = index(imported.folder)
    assert len({(row["group"], row["split"]) for row in rows}) == 5
    assert Counter(row["split"] for row in rows) == {"train": 12, "val": 4, "test": 4}
    assert {row["group"] for row in rows} == {f"slide{n}" for n in range(5)}


def test_tissues_are_spread_alike_and_the_seed_decides(root: Path, tmp_path: Path) -> None:
    many(root, [f"{tissue}/{n}" for tissue in ("lung", "skin") for n in range(10)])
    options = {"tissue": "folder:1", "split": {"train": 0.6, "val": 0.2, "test": 0.2}}
    splits = []
    for n, seed in enumerate((0, 0, 1)):
        imported = import_annotations("suffix", root, tmp_path / str(n), ImportOptions(seed=seed, **options))
        rows = index(imported.folder)
        assert set(Counter((row["tissue"], row["split"]) for row in rows).values()) == {6, 2}
        splits.append([row["split"] for row in rows])
    assert splits[0] == splits[1] != splits[2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("xy")), min_size=3), st.integers(0, 5))
def test_a_split_keeps_groups_whole_and_leaves_no_split_empty(images: list[tuple[str, str]], seed: int) -> None:
    groups, tissues = zip(*images, strict=True)
    splits = divided(groups, tissues, {"train": 0.7, "val": 0.15, "test": 0.15}, seed)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert len(set(splits)) == min(3, len(set(groups)))
    back = divided(groups[::-1], tissues[::-1], {"train": 0.7, "val": 0.15, "test": 0.15}, seed)
    assert back[::-1] == splits


def test_a_table_gives_tissue_and_group(root: Path, tmp_path: Path, run: Import) -> None:
    many(root, ["a", "b", "c"])
    table = tmp_path / "images.csv"
    table.write_text("image;organ;patient\na.png;lung;1\nb;skin;1\nc.png;skin;2\n")
    rows = index(run("suffix", table=table, tissue="column:organ", group_by="column:patient").folder)
    assert [(row["tissue"], row["group"]) for row in rows] == [("lung", "1"), ("skin", "1"), ("skin", "2")]
    assert rows[0]["split"] == rows[1]["split"] != rows[2]["split"]


def test_a_group_in_two_folders_of_splits_is_refused_unless_divided_anew(root: Path, run: Import) -> None:
    many(root, ["train/p1_a", "train/p2_a", "test/p1_b"])
    with pytest.raises(SegbenchError, match=r"--group-by regex:p\.: 'p1' stands in test and in train"):
        run("suffix", group_by="regex:p.")
    rows = index(run("suffix", group_by="regex:p.", split={"train": 0.5, "test": 0.5}).folder)
    assert rows[0]["split"] == rows[1]["split"] != rows[2]["split"]


def test_images_outside_of_the_folders_of_splits_are_refused(root: Path, run: Import) -> None:
    many(root, ["train/a", "test/b", "c"])
    with pytest.raises(SegbenchError, match=r"1 images lie in no folder of a split \(c\.png\)"):
        run("suffix")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": "slide"}, "--group-by takes folder:1"),
        ({"group_by": "folder:0"}, "counts folders from 1"),
        ({"group_by": "folder:2"}, r"image a\.png lies in 0 folders"),
        ({"group_by": "regex:("}, "is no regular expression"),
        ({"group_by": "regex:z"}, r"finds nothing in the image a\.png"),
        ({"group_by": "column:x"}, "needs --table"),
        ({"tissue": "all"}, "no tissue can be named 'all'"),
        ({"pattern": "x.png"}, "with one {}"),
        ({"pattern": "{}_none.png"}, "has no mask"),
        ({"table": Path("nowhere.csv"), "tissue": "column:x"}, r"cannot read nowhere\.csv"),
    ],
)
def test_an_option_that_means_nothing_is_one_line(
    root: Path, tmp_path: Path, run: Import, options: dict[str, Any], message: str
) -> None:
    many(root, ["a"])
    with pytest.raises(SegbenchError, match=message) as error:
        run("suffix", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cells").exists()


# Anything


ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w") as _archive:
    _archive.writestr("1.roi", ImagejRoi(roitype=ROI_TYPE.RECT, right=5, bottom=6).tobytes())
JUNK = st.sampled_from(
    [None, True, -1, 0, 7, 2.5, 1e300, 10**400, float("nan"), float("inf"), "", "x", [], {}, [[]], [7]]
)
DOCUMENTS = {
    "coco": {
        "images": [{"id": 1, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]}],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[2, 2, 9, 2, 9, 9, 2, 9]]},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": list(SHAPE), "counts": [700, 60, 8]}},
        ],
    },
    "geojson": {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[1, 1], [5, 1], [5, 6], [1, 1]]], "plane": {"z": 0}},
                "properties": {"objectType": "cell"},
            },
            {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[[[9, 9], [15, 9], [9, 16]]]]}},
        ],
    },
}


def changed(value: Any, walk: list[int], junk: Any) -> Any:
    """Return a copy of a document with junk where a walk into it ends."""
    if not walk or not isinstance(value, list | dict) or not value:
        return junk
    keys = list(value) if isinstance(value, dict) else range(len(value))
    chosen = keys[walk[0] % len(keys)]
    pairs = [(key, changed(value[key], walk[1:], junk) if key == chosen else value[key]) for key in keys]
    return dict(pairs) if isinstance(value, dict) else [one for _, one in pairs]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(list(DOCUMENTS)), st.lists(st.integers(0, 11), max_size=7), JUNK)
def test_any_json_is_imported_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, walk: list[int], junk: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    picture(folder / "a.png")
    (folder / "a.json").write_text(json.dumps(changed(DOCUMENTS[kind], walk, junk)))
    imports_or_tells(kind, folder / "a.json", folder / "to")


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["imagej", "cellpose", "suffix"]), change=CHANGES)
def test_a_file_with_bytes_changed_is_imported_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, change: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    picture(folder / "a.png")
    path = folder / {"imagej": "a.zip", "cellpose": "a_seg.npy", "suffix": "a_mask.tif"}[kind]
    if kind == "imagej":
        path.write_bytes(ZIP.getvalue())
    elif kind == "cellpose":
        write_seg_npy(path, cells(), "a.png")
    else:
        write_label_tiff(path, cells())
    data = bytearray(path.read_bytes())
    for place, value in change:
        data[int(place * (len(data) - 1))] = value
    path.write_bytes(data)
    imports_or_tells(kind, folder, folder / "to")


def imports_or_tells(kind: str, path: Path, target: Path) -> None:
    try:
        imported = import_annotations(kind, path, target)
    except SegbenchError as error:
        told = str(error)
    else:
        assert index(imported.folder)
        return
    assert "\n" not in told
    assert not target.exists()
