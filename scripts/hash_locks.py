"""Writes behind each line of a lock the SHA-256 of the files that it may stand for: ``scripts/hash_locks.py LOCK...``.

The files are those of the package index that uv is told of: source distributions, and wheels for any system, Linux or
macOS and this segbench's versions of Python. A build that is on no index (``torch==2.13.0+cpu``) keeps its line.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PYTHON = re.compile(r"-(py3|py2\.py3|cp3\d*|cp311|cp312|cp313|pp\d+)(\.[\w.]+)?-")
_SYSTEM = re.compile(r"(-any|manylinux[\w.]*_(x86_64|aarch64)|macosx[\w.]*_(arm64|universal2))\.whl$")
_TOO_OLD_OR_NEW = re.compile(r"-cp3(\d+)-cp3\1[td]?-")


def main(paths: list[str]) -> int:
    """Write the hashes of each lock; returns the exit status."""
    for path in map(Path, paths):
        lines = joined(path.read_text())
        pins = [pin for line in lines if (pin := pin_of(line)) and "+" not in pin]
        known = hashes(pins)
        out: list[str] = []
        for line in lines:
            pin = pin_of(line)
            found = known.get(canonical(pin), []) if pin else []
            out.append(" \\\n".join([pin, *(f"    --hash=sha256:{one}" for one in found)]) if pin and found else line)
        path.write_text("\n".join(out) + "\n")
        bare = [pin for line in lines if (pin := pin_of(line)) and not known.get(canonical(pin))]
        print(f"{path}: {len(pins)} pins, {sum(map(len, known.values()))} hashes; without: {', '.join(bare) or 'none'}")
    return 0


def joined(text: str) -> list[str]:
    """Return a lock's lines, each pin without the hashes that it has."""
    whole = re.sub(r"\s*\\\n\s*", " ", text)
    return [re.sub(r"( --hash=sha256:[0-9a-f]{64})+", "", line).rstrip() for line in whole.splitlines()]


def pin_of(line: str) -> str | None:
    """Return ``name==version`` of a line; None for a comment."""
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*==[^\s;]+)(\s*;.*)?", line)
    return found[0] if found else None


def canonical(pin: str) -> str:
    """Return a pin as it is compared, without its markers."""
    name, version = pin.partition(";")[0].strip().split("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def hashes(pins: list[str]) -> dict[str, list[str]]:
    """Ask uv for the files of pins; return their hashes by pin."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, found = Path(folder) / "wanted.txt", Path(folder) / "pylock.toml"
        wanted.write_text("\n".join(pins) + "\n")
        uv = str(Path(sys.executable).parent / "uv")
        command = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--no-deps",
            "--universal",
            "--python-version",
            "3.11",
            "--format",
            "pylock.toml",
        ]
        subprocess.run([*command, "-o", str(found), str(wanted)], check=True, stdout=subprocess.DEVNULL)
        packages: list[dict[str, Any]] = tomllib.loads(found.read_text())["packages"]
    return {canonical(f"{one['name']}=={one['version']}"): sorted(set(files(one))) for one in packages}


def files(package: dict[str, Any]) -> Iterator[str]:
    """Yield the hashes of a package's source distribution and of the wheels that fit."""
    if "sdist" in package:
        yield package["sdist"]["hashes"]["sha256"]
    for wheel in package.get("wheels", []):
        name = wheel.get("name") or wheel["url"].rpartition("/")[2].partition("#")[0]
        own = _TOO_OLD_OR_NEW.search(name)
        fits = own is None or own[1] in ("11", "12", "13")
        if fits and _PYTHON.search(name) and _SYSTEM.search(name):
            yield wheel["hashes"]["sha256"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
