"""The list of checksums of a prepared dataset is itself not believed when it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segbench.engine.data.checksums import SUMS, note_checksums, what_is_wrong


@pytest.mark.parametrize("damage", ["empty", "cut", "an entry less", "an odd entry", "another digest"])
def test_a_damaged_list_of_checksums_is_not_taken_for_an_older_dataset_that_has_none(
    tmp_path: Path, damage: str
) -> None:
    for name in ("images-test.npy", "index-test.parquet", "meta.json"):
        (tmp_path / name).write_bytes(name.encode())
    note_checksums(tmp_path)
    assert what_is_wrong(tmp_path) is None
    content = (tmp_path / SUMS).read_text()
    listed = json.loads(content)
    if damage == "an entry less":
        del listed["images-test.npy"]
    elif damage == "an odd entry":
        listed["images-test.npy"] = {"a": []}
    elif damage == "another digest":
        listed["images-test.npy"][0] += 1
    changed = {"empty": "", "cut": content[:40]}.get(damage, json.dumps(listed))
    (tmp_path / SUMS).write_text(changed)
    assert what_is_wrong(tmp_path) is not None
