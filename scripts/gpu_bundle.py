"""Packs what segbench needs on a machine that has PyTorch's own packages and no way to get others.

    python scripts/gpu_bundle.py                           # .gpu/methods.tar.xz and .gpu/engine.tar.xz, in parts
    python scripts/gpu_bundle.py methods                   # one of them
    python scripts/gpu_bundle.py data --dataset dsb2018    # .gpu/data.npz: windows of a prepared dataset

Versions are those of the locks. Pure packages are copied from the methods' environments that are built here
(``segbench methods install``), packages with extensions are downloaded as wheels for the other machine's Python with
pip, by its own settings. What the image there has already (IMAGE_HAS) is left out, and so is what is not needed to run:
tests, type stubs, byte code, debugging symbols, Ray's jars, dashboard and reinforcement learning.
``scripts/gpu_check.sh`` unpacks them there.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "segbench" / "engine" / "run" / "locks"
PYTHON = "3.12"
"""Of the machine that the archives are for."""
METHODS = (
    "onedl-mmcv", "onedl-mmdetection", "onedl-mmengine", "sal-detectron2", "timm", "addict", "yapf", "platformdirs",
    "terminaltables", "termcolor", "fvcore", "iopath", "omegaconf", "hydra-core", "antlr4-python3-runtime", "yacs",
    "portalocker", "tabulate", "pycocotools", "shapely", "segment-anything", "cellpose", "fastremap", "fill-voids",
    "natsort", "roifile",
)  # fmt: skip
"""Distributions of the methods' locks that the image does not have, or has in another version."""
BASE = ("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions", "typer", "filelock")
"""Distributions of the engine's lock that every command needs."""
ENGINE = ("ray", "duckdb", "polars", "polars-runtime-32", "jsonschema", "jsonschema-specifications", "referencing",
          "rpds-py")  # fmt: skip
"""Distributions of the engine's lock that placing, preparing and storing need."""
IMAGE_HAS = (
    "torch", "torchvision", "numpy", "scipy", "scikit-image", "numba", "opencv-python-headless", "pillow", "pyarrow",
    "matplotlib", "pandas", "statsmodels", "tifffile", "rich", "click", "pyyaml", "psutil", "jinja2", "pytest",
    "pytest-xdist", "pytest-timeout", "setuptools",
)  # fmt: skip
"""What is taken from the image; gpu_check.sh says so where one is not there."""
_LEFT_OUT = re.compile(
    r"(^|/)(__pycache__|tests?|testing/data|yapftests)/|\.py[ci]$|^docs/|/_C\.cpython|"
    r"^ray/(jars|rllib|llm|cpp|tune|serve|train|data|dag/tests|core/src/plasma)/|^ray/dashboard/client/|"
    r"^_duckdb-stubs/|^tools/|^\.\./"
)
_NEEDED = re.compile(r"^ray/(train|tune|serve|data)/__init__\.py$")
_FILTERS = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**27},
]
"""Ray's binaries hold the same code three times: the dictionary is large enough to see it."""
LARGEST = 32 * 2**20
"""Bytes of a file; a larger archive is written in parts, for machines that take so much at once."""


def versions(*paths: Path) -> dict[str, str]:
    """Return the pinned versions of lock files."""
    pins: dict[str, str] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            match = re.match(r"([A-Za-z0-9][\w.-]*)==([^\s;]+)", line)
            if match:
                pins.setdefault(match[1].lower(), match[2])
    return pins


def installed(python: Path) -> dict[str, dict[str, Any]]:
    """Return the distributions of an interpreter: version, files (name: path), and whether they are pure Python."""
    code = (
        "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): {'version': d.version, 'files': "
        "{str(f): str(d.locate_file(f)) for f in d.files or []}} for d in m.distributions() if d.name}))"
    )
    found = json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)
    for about in found.values():
        about["pure"] = not any(".so" in Path(name).suffixes and "/_C." not in name for name in about["files"])
    return {name.replace("_", "-"): about for name, about in found.items()}


def download(pins: Sequence[str], to: Path) -> None:
    """Download wheels for the other machine's Python, by pip's own settings."""
    glibc = (5, 12, 17, 24, 26, 27, 28, 31, 34, 35, 39)
    tags = ["manylinux1", "manylinux2010", "manylinux2014", *(f"manylinux_2_{minor}" for minor in glibc)]
    platforms = [part for tag in tags for part in ("--platform", f"{tag}_x86_64")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    which = ["--python-version", PYTHON, "--implementation", "cp", *platforms, "--dest", str(to)]
    subprocess.run([*command, *which, *pins], check=True)


def collect(names: Sequence[str], pins: Mapping[str, str], environments: Sequence[Path], to: Path) -> None:
    """Put distributions into a folder as they lie in site-packages."""
    here: dict[str, dict[str, Any]] = {}
    for python in environments:
        here = installed(python) | here
    wanted = []
    for name in names:
        mine = here.get(name)
        if mine is None or mine["version"] != pins[name] or not mine["pure"]:
            wanted.append(f"{name}=={pins[name]}")
            continue
        for file, path in mine["files"].items():
            if keeps(file) and Path(path).is_file():
                (to / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to / file)
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as folder:
        download(wanted, Path(folder))
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(to, [name for name in archive.namelist() if keeps(name)])
                for info in archive.infolist():
                    if keeps(info.filename) and (info.external_attr >> 16) & 0o111:
                        (to / info.filename).chmod(0o755)


def keeps(name: str) -> bool:
    """Return whether a distribution's file goes along."""
    return _NEEDED.search(name) is not None or _LEFT_OUT.search(name) is None


def describe_segbench(to: Path) -> None:
    """Write the metadata of this checkout's segbench: without them its methods have no names."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r'__version__ = "(.*)"', (ROOT / "segbench" / "__init__.py").read_text())
    assert version is not None
    info = to / f"segbench-{version[1]}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: segbench\nVersion: {version[1]}\n")
    groups = {"console_scripts": about["scripts"], **about["entry-points"]}
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) for group, rows in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


def strip(folder: Path) -> None:
    """Take the symbols that are for debuggers out of all binaries."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                binary = file.read(4) == b"\x7fELF"
            if binary:
                subprocess.run(["strip", "--strip-unneeded", path], capture_output=True, check=False)


def pack(folder: Path, archive: Path) -> None:
    """Write a folder as a tar.xz, the same bytes for the same files."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    part = archive.with_name(archive.name + ".part")
    with lzma.open(part, "wb", filters=_FILTERS) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for path in in_order(folder):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)
    part.replace(archive)
    for old in archive.parent.glob(f"{archive.name}.*of*"):
        old.unlink()
    written = archive.read_bytes()
    n = -(-len(written) // LARGEST)
    if n > 1:
        archive.unlink()
        for k in range(n):
            piece = written[k * LARGEST : (k + 1) * LARGEST]
            archive.with_name(f"{archive.name}.{k + 1}of{n}").write_bytes(piece)


def in_order(folder: Path) -> Iterator[Path]:
    """Yield the files, those of one kind together."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    yield from sorted(files, key=lambda path: (path.suffix, path.name, str(path)))


def write_data(dataset: str, train: int, test: int, seed: int, path: Path) -> None:
    """Write windows of a prepared dataset, drawn by a seed from those with a cell: images as uint8, labels as int16.

    The .npz is compressed with LZMA, which ``numpy.load`` reads.
    """
    from segbench.engine.data import open_prepared

    prepared, rng = open_prepared(dataset), np.random.default_rng(seed)
    target = prepared.targets[-1]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for split, wanted in (("train", train), ("test", test)):
            images = np.load(prepared.images_path(split), mmap_mode="r")
            labels = np.load(prepared.labels_path(split, target), mmap_mode="r")
            cells = prepared.index(split)[f"n_cells_{target}"].to_numpy()
            rows = np.sort(rng.choice(np.flatnonzero(cells), wanted, replace=False))
            arrays = {"images": np.rint(images[rows] * 255).astype(np.uint8), "labels": labels[rows].astype(np.int16)}
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{split}_{name}.npy"), buffer.getvalue(), zipfile.ZIP_LZMA)


def environments() -> list[Path]:
    """Return the interpreters of the methods' environments that are built here."""
    from segbench.engine.run import environments as built

    found = [built.ensure(name, gpu=False, progress=print).python for name in ("torch", "cellpose")]
    return [*found, Path(sys.executable)]


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT", help="methods, engine, data; without, methods and engine")
    parser.add_argument("--to", type=Path, default=ROOT / ".gpu", help="the folder; .gpu, which git ignores")
    parser.add_argument("--dataset", help="for data: the name of a prepared dataset of one channel")
    parser.add_argument("--train", type=int, default=320, help="for data: training windows")
    parser.add_argument("--test", type=int, default=96, help="for data: test windows")
    parser.add_argument("--seed", type=int, default=15)
    arguments = parser.parse_args()
    what = arguments.what or ["methods", "engine"]
    if set(what) - {"methods", "engine", "data"} or ("data" in what and arguments.dataset is None):
        parser.error("give methods, engine or data; data needs --dataset NAME")
    to: Path = arguments.to
    to.mkdir(parents=True, exist_ok=True)
    pins = versions(ROOT / "requirements.lock", *sorted(LOCKS.glob("torch*.txt")), LOCKS / "cellpose-gpu.txt")
    for name, distributions in (("methods", (*METHODS, *BASE)), ("engine", ENGINE)):
        if name not in what:
            continue
        with tempfile.TemporaryDirectory() as folder:
            collect(distributions, pins, environments(), Path(folder))
            if name == "methods":
                describe_segbench(Path(folder))
            strip(Path(folder))
            pack(Path(folder), to / f"{name}.tar.xz")
    if "data" in what:
        write_data(arguments.dataset, arguments.train, arguments.test, arguments.seed, to / "data.npz")
    for path in sorted(to.iterdir()):
        print(f"{path.name:20} {path.stat().st_size / 2**20:7.2f} MiB")


if __name__ == "__main__":
    main()
