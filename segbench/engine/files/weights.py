"""Tells whether the files of a trained model are nothing but numbers and text: what runs code when read is refused."""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from segbench.engine.files.limits import read_npy_header
from segbench.errors import SegbenchError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_MOST_JSON = 64 * 2**20
_MOST_PICKLE = 256 * 2**20
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"(Lambda|TFOpLambda|SlicingOpLambda)"')

_TORCH = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state|qtensor)"
    r"|torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool|Untyped)Storage"
    r"|torch\.storage (UntypedStorage|TypedStorage)"
    r"|torch (Size|device|float16|float32|float64|bfloat16|int8|int16|int32|int64|uint8|bool)"
)
"""What a pickle of weights may name: torch's tensors and their storages, and the dictionary they lie in."""
_OPERATIONS = frozenset(("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"))
"""What a pickle of tensors has no use for: each calls something, or names it by text that it puts together."""


def check_weights(folder: Path) -> None:
    """Raise SegbenchError for the first file of a model's folder that is not plainly data; nothing is loaded.

    Read are JSON, ``.npy`` and ``.npz`` without objects, HDF5 without Keras's lambda layers, and PyTorch's zip files
    whose pickle names nothing but tensors. Anything else is refused.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise SegbenchError(f"{path.name} is refused: it is a link or a device, not a file of a model")
        if path.is_file():
            check_weights_file(path)


def check_weights_file(path: Path) -> None:
    """Raise SegbenchError where a file of a model is not plainly data; see ``check_weights``."""
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        try:
            _kind(path, head)(file)
        except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, NotImplementedError) as error:
            raise SegbenchError(f"{path.name} is refused as weights: {error}") from None


def _kind(path: Path, head: bytes) -> Callable[[IO[bytes]], None]:
    if path.suffix == ".json":
        return _check_json
    if head == _HDF5:
        return _check_hdf5
    if head.startswith(_NPY):
        return _check_npy
    if head.startswith(_ZIP):
        return _check_zip
    return _refuse


def _refuse(file: IO[bytes]) -> None:
    if file.read(1) == b"\x80":
        raise ValueError("it is a bare pickle, which runs code when it is loaded")
    raise ValueError("it is neither JSON, NumPy, HDF5 nor PyTorch's zip format, and may run code when it is loaded")


def _check_json(file: IO[bytes]) -> None:
    content = file.read(_MOST_JSON + 1)
    if len(content) > _MOST_JSON:
        raise ValueError("it is too long for a file of settings")
    try:
        json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_hdf5(file: IO[bytes]) -> None:
    """Look for lambda layers, whose code Keras would run; the overlap catches one that lies across two pieces."""
    end = b""
    while piece := file.read(2**22):
        if _LAMBDA.search(end + piece):
            raise ValueError("it holds a Keras lambda layer, which runs code when it is loaded")
        end = piece[-200:]


def _check_npy(file: IO[bytes]) -> None:
    _, _, dtype = read_npy_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects (a pickle), not numbers")


def _check_zip(file: IO[bytes]) -> None:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise ValueError("two of its entries have one name")
        pickles = [name for name in names if name.endswith(".pkl")]
        if not pickles:
            _check_npz(archive, names)
            return
        if any("/code/" in f"/{name}" for name in names):
            raise ValueError("it is a TorchScript program, which is code")
        for name in pickles:
            if archive.getinfo(name).file_size > _MOST_PICKLE:
                raise ValueError("its list of tensors is too long")
            _check_pickle(archive.read(name))


def _check_npz(archive: zipfile.ZipFile, names: list[str]) -> None:
    for name in names:
        if not name.endswith(".npy"):
            raise ValueError(f"it is a zip archive of something else than arrays or tensors: {name[:60]!r}")
        with archive.open(name) as member:
            _check_npy(member)


def _check_pickle(content: bytes) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and not _TORCH.fullmatch(str(argument)):
            raise ValueError(f"its pickle asks for {str(argument)[:80].replace(' ', '.')}, which is no tensor")
        if operation.name in _OPERATIONS:
            raise ValueError(f"its pickle calls something ({operation.name}), which tensors do not need")
