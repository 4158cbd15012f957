"""Every block of code in the README and the documentation is run, in its page's order, or says why not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import GapRow, Record
from segbench.engine.results.store import StoreWriter, query

Shell = Callable[[str, Path], None]

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MARK = re.compile(r"<!-- (not run|heavy|written to)(?::)? (.+) -->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    place: str
    """The page and the line, as an editor opens it."""
    line: int
    """Of the first line of code, from 0."""
    language: str
    """What stands behind the fence; empty for an indented block."""
    text: str
    mark: str = ""
    """What the comment before the block says of it: ``not run``, ``heavy``, ``written to``, or nothing."""
    note: str = ""
    """The reason, or the file's name."""


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a Markdown page in their order, each with the comment that stands right before it."""
    found, mark, note = [], "", ""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in ("fence", "code_block") and token.map:
            place = f"{page.relative_to(ROOT)}:{token.map[0] + 1}"
            found.append(Block(place, token.map[0] + 1, token.info.strip(), token.content, mark, note))
        comment = MARK.match(token.content) if token.type == "html_block" else None
        mark, note = comment.groups() if comment else ("", "")
    return found


def is_run(block: Block) -> bool:
    """Return whether something is done with the block."""
    return block.language != "text" and block.mark != "not run"


BEGINNINGS = (ROOT / "README.md", ROOT / "docs" / "index.md")
"""Pages whose reader has no results yet."""

CODE = {page: [block for block in blocks_of(page) if is_run(block)] for page in PAGES}


# What a reader has before the first line of a page


def pictures(folder: Path) -> None:
    """Draw six images of round nuclei with their masks and an index, and a segmentation of two of them."""
    rows = ["image,mask,split,tissue"]
    ys, xs = np.mgrid[:128, :128]
    for number in range(6):
        mask = np.zeros((128, 128), np.uint8)
        for label, (y, x) in enumerate(np.ndindex(4, 4), start=1):
            mask[np.hypot(ys - 16 - 32 * y, xs - 16 - 32 * x) < 7 + (number + x) % 4] = label
        noise = np.random.default_rng(number).integers(0, 40, mask.shape)
        split, tissue = ("train", "val", "test")[number % 3], ("lung", "skin")[number // 3]
        rows.append(f"{number}.png,masks/{number}.png,{split},{tissue}")
        for home, pixels in {
            "my-images": (mask > 0) * 180 + noise,
            "my-images/masks": mask,
            "truth": mask,
            "predicted": np.roll(mask, 1, axis=0),
        }.items():
            (folder / home).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / home / f"{number}.png")
    (folder / "my-images" / "index.csv").write_text("\n".join(rows) + "\n")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    masks = np.stack([np.asarray(Image.open(folder / "truth" / f"{number}.png")) for number in range(6)])
    np.save(folder / "truth.npy", masks)
    np.save(folder / "predicted.npy", np.roll(masks, 1, axis=1))
    square = {"image_id": 1, "category_id": 1, "segmentation": [[2, 2, 42, 2, 42, 42, 2, 42]], "bbox": [2, 2, 40, 40]}
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{**square, "id": 1, "area": 1600, "iscrowd": 0}],
    }
    (folder / "instances.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps([{**square, "score": 0.9}]))


def results(folder: Path, ready: Path) -> None:
    """Copy the results of a small grid to where the commands look for them, and to the places that pages name."""
    for name in ("segbench-results", "other", "cluster-a", "cluster-b"):
        shutil.copytree(ready, folder / name)


@pytest.fixture(scope="module")
def cache(own_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the pages a cache of their own, so that what they register is not there for other tests."""
    folder = tmp_path_factory.mktemp("snippets-cache")
    for name in ("environments", "prepared"):
        (own_cache / name).mkdir(exist_ok=True)
        (folder / name).symlink_to(own_cache / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def shell(cache: Path) -> Shell:  # noqa: ARG001 - must be set before a command runs
    """Return a function that runs lines of shell in a folder, with this environment's programs first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run(lines: str, folder: Path) -> None:
        found = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", lines],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert found.returncode == 0, f"{lines}\n{found.stdout[-2000:]}\n{found.stderr[-3000:]}"

    return run


@pytest.fixture(scope="module")
def ready(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of the baseline on a few drawn tissues."""
    folder = tmp_path_factory.mktemp("ready")
    shell(
        "segbench data prepare synthetic --layout tissuenet --name tiny --scale 0.2\n"
        "segbench grid launch --dataset tiny --method watershed --task tiny-nuclear-1ch --inline",
        folder,
    )
    return folder / "segbench-results"


@pytest.fixture
def asked(tmp_path_factory: pytest.TempPathFactory, make_record: Callable[..., Record]) -> Path:
    """Return results that have something of everything: two tissues, settings, versions, a loss curve, a failure."""
    folder = tmp_path_factory.mktemp("asked")
    lung = make_record().evaluations[0].model_copy(update={"test_tissue": "lung"})
    done = make_record(settings={"flow_threshold": 0.4}, versions={"stardist": "0.9.2"})
    failed = make_record("b" * 12, status="failed", error="killed", log_tail="the end")
    shares = {"score": 0.6, "gap": 0.4, "missed": 0.2, "split": 0.0, "merged": 0.1, "spurious": 0.0, "loose": 0.1}
    gap = GapRow(test_task=lung.test_task, test_tissue="all", metric="ap50", **shares)
    done = done.model_copy(update={"evaluations": [*done.evaluations, lung], "gaps": [gap]})
    StoreWriter(ResultsFolder(folder)).add([done, failed])
    return folder


def run_block(block: Block, folder: Path, asked: Path, shell: Shell, names: dict[str, object]) -> None:
    """Do what the block's language and mark say, in the page's folder and with the names of its earlier blocks."""
    if block.mark == "written to":
        (folder / block.note).parent.mkdir(parents=True, exist_ok=True)
        (folder / block.note).write_text(block.text)
    elif block.language == "sh":
        shell(block.text, folder)
    elif block.language == "python":
        # empty lines before it, so that a traceback names the page's lines
        exec(compile("\n" * block.line + block.text, str(ROOT / block.place.split(":")[0]), "exec"), names)
    else:
        assert query(ResultsFolder(asked), block.text).height > 0, f"{block.place} finds nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    faults = []
    for block in blocks_of(page):
        if not block.language:
            faults.append(f"{block.place}: no language; fence it, 'text' for what a program prints")
        elif block.language not in ("sh", "python", "sql", "text") and not block.mark:
            faults.append(f"{block.place}: {block.language} is not run; write '<!-- not run: WHY -->' before it")
        elif block.mark == "not run" and len(block.note.split()) < 3:
            faults.append(f"{block.place}: '{block.note}' is no reason")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.heavy] * any(b.mark == "heavy" for b in code)
        )
        for page, code in CODE.items()
        if code
    ],
)
def test_the_page_does_what_it_says(
    page: Path, tmp_path: Path, asked: Path, shell: Shell, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path)
    if page not in BEGINNINGS:
        results(tmp_path, ready)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in CODE[page]:
        run_block(block, tmp_path, asked, shell, names)
