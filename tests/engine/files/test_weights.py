"""The files of a model are data, or refused: a pickle of more than tensors, objects in arrays, a Keras lambda."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from segbench.engine.files.weights import check_weights
from segbench.errors import SegbenchError


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, ("touch evil.txt",)


def _torch_file(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")


def _refused(folder: Path, wanted: str) -> None:
    with pytest.raises(SegbenchError) as caught:
        check_weights(folder)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_passes(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text('{"channels": 2}')
    np.savez(tmp_path / "weights.npz", np.zeros(3), np.arange(4))
    np.save(tmp_path / "one.npy", np.zeros((2, 2), np.float32))
    (tmp_path / "weights_best.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    _torch_file(tmp_path / "model.pth", pickle.dumps(OrderedDict(a=1, b=[2.0, "text"]), protocol=2))
    check_weights(tmp_path)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_something_is_refused_and_not_run(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _torch_file(tmp_path / "model.pth", pickle.dumps(_Runs(), protocol=protocol))
    _refused(tmp_path, "its pickle ")
    (tmp_path / "model.pth").write_bytes(pickle.dumps(_Runs(), protocol=protocol))
    _refused(tmp_path, "may run code" if protocol == 0 else "bare pickle")
    assert not (tmp_path / "evil.txt").exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", np.array([{}], object))
    _refused(tmp_path, "Python objects")


def test_a_keras_lambda_is_refused(tmp_path: Path) -> None:
    config = json.dumps({"class_name": "Lambda", "config": {"function": "..."}}).encode()
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2**22 - 20) + config + bytes(100))
    _refused(tmp_path, "lambda layer")


def test_programs_and_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/code/__torch__.py", "def forward(self): ...")
        archive.writestr("net/data.pkl", pickle.dumps({}, protocol=2))
    _refused(tmp_path, "TorchScript program")
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("a.txt", "x")
    _refused(tmp_path, "something else than arrays")
    (tmp_path / "net.pt").write_text("import os")
    _refused(tmp_path, "neither JSON")
    (tmp_path / "net.pt").unlink()
    (tmp_path / "link").symlink_to("/etc/passwd")
    _refused(tmp_path, "a link")


def test_a_broken_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    _refused(tmp_path, "a.json is refused as weights")
    (tmp_path / "a.json").unlink()
    (tmp_path / "w.npz").write_bytes(b"PK\x03\x04" + bytes(50))
    _refused(tmp_path, "w.npz is refused as weights")
