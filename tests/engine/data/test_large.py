"""An image that memory cannot hold is prepared some rows at a time, into the very same windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from cell_images import discs

from segbench.engine.data import DatasetSpec, PreparedDataset, ensure_prepared
from segbench.engine.data import large as large_module
from segbench.engine.files import spool
from segbench.errors import SegbenchError


def _folder(folder: Path, **how: Any) -> DatasetSpec:
    """Write two images of two channels as tiled TIFFs."""
    folder.mkdir()
    lines = ["image,mask,split"]
    for number, split in enumerate(("train", "test")):
        image, labels = discs(700, 610, 60, seed=number)
        labels[400:, :] = 0  # whole rows of windows without a cell
        pair = np.stack([image, np.clip(image // 3 + 7 * number, 0, 600)])
        tifffile.imwrite(folder / f"{split}.tif", pair, photometric="minisblack", tile=(64, 64), **how)
        tifffile.imwrite(folder / f"{split}-mask.tif", labels.astype(np.uint32), tile=(64, 64), compression="zlib")
        lines.append(f"{split}.tif,{split}-mask.tif,{split}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return DatasetSpec("large", "folder", str(folder), {"target": "cell", "channels": ["a", "b"]})


def _arrays(prepared: PreparedDataset) -> dict[str, npt.NDArray[Any]]:
    return {path.name: np.load(path) for path in sorted(prepared.folder.glob("*.npy"))}


@pytest.mark.parametrize("metadata", [{"axes": "CYX"}, None])
def test_the_windows_are_those_of_an_image_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str] | None
) -> None:
    spec = _folder(tmp_path / "cells", compression="zlib", metadata=metadata)
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "small"))
    small = ensure_prepared(spec)
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "large"))
    monkeypatch.setattr(spool, "LARGE_BYTES", 100_000)
    monkeypatch.setattr(large_module, "_ROWS", 48)
    rows_of_windows: list[int] = []
    row = large_module._row
    monkeypatch.setattr(large_module, "_row", lambda *given: rows_of_windows.append(given[3]) or row(*given))
    banded = ensure_prepared(spec)
    assert rows_of_windows == [0, 192, 384, 444] * 2
    assert banded.fingerprint == small.fingerprint
    for name, array in _arrays(small).items():
        np.testing.assert_array_equal(_arrays(banded)[name], array, err_msg=name)
    for split in ("train", "test"):
        assert banded.index(split).equals(small.index(split))
    assert banded.cells().equals(small.cells())
    assert (banded.diameters, banded.notes) == (small.diameters, small.notes)
    assert not list((tmp_path / "large" / "prepared").glob("*.part-*"))


def test_what_is_wrong_with_a_large_image_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _folder(tmp_path / "cells")
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spool, "LARGE_BYTES", 100_000)
    tifffile.imwrite(tmp_path / "cells" / "test-mask.tif", np.zeros((10, 10), np.uint8))
    with pytest.raises(SegbenchError, match=r"test.tif is \(700, 610\) .*, but its mask test-mask.tif is \(10, 10\)"):
        ensure_prepared(spec)
    tifffile.imwrite(tmp_path / "cells" / "test-mask.tif", np.full((700, 610), -1, np.int32))
    with pytest.raises(SegbenchError, match="labels must be 0"):
        ensure_prepared(spec)


def test_arrays_on_the_disk_go_with_their_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "new" / "cache"))
    monkeypatch.setattr(spool, "LARGE_BYTES", 1000)
    array = spool.array_of((40, 50), np.uint16, "a.tif")
    assert isinstance(array, np.memmap)
    assert spool.is_large(array)
    array[3:7] = 9
    spool.let_go(array[2:])
    assert array.sum() == 4 * 50 * 9
    assert not (tmp_path / "new").exists()
    assert not isinstance(spool.array_of((4, 5), np.uint16, "a.tif"), np.memmap)
    with pytest.raises(SegbenchError, match=r"a\.tif needs .* GB on the disk"):
        spool.array_of((10**9, 10**6), np.uint16, "a.tif")
