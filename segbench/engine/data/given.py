"""What a method's process is given of a prepared dataset: a folder of links in which the test labels do not lie."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from segbench.engine.data.checksums import note_linked
from segbench.engine.data.prepared import PreparedDataset

_TEST = "test"


def given_folder(data: PreparedDataset) -> Path:
    """Return a folder with a dataset's windows, and its labels of every split but ``test``, under the same names.

    The files are hard links, so that nothing leads from them to where the dataset lies; where the system makes none
    (another file system, files of another owner) they are symbolic links. What was prepared anew is linked anew.
    """
    home = data.folder.parent.parent / "given"
    folder = home / hashlib.sha256(f"given {data.folder.name}".encode()).hexdigest()[:24]
    wanted = [data.images_path(split) for split in data.splits]
    wanted += [data.labels_path(split, target) for split in data.splits if split != _TEST for target in data.targets]
    missing = [path for path in wanted if not _is_there(folder / path.name, path)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            _link(path, folder / path.name)
        note_linked(data.folder, [path.name for path in missing])
    return folder


def _is_there(link: Path, path: Path) -> bool:
    try:
        return link.samefile(path)
    except OSError:
        return False


def _link(path: Path, to: Path) -> None:
    part = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
    try:
        try:
            os.link(path.resolve(), part)
        except OSError:
            part.symlink_to(path.resolve())
        part.replace(to)
    finally:
        # of two that link at once the second finds its own already there: renaming one link to the other does nothing
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
