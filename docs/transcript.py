"""Runs the README's commands on a terminal of 80 columns and on a pipe, and writes what they print as a page.

python docs/transcript.py docs/transcript.md

tests/test_transcript.py runs it too, and looks that the page agrees, figures and times masked.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
WIDTH = 80
PROGRAM = [sys.executable, "-c", "import sys; sys.argv[0] = 'segbench'; from segbench.cli.app import main; main()"]
_ONCE = ("init", "data prepare", "grid launch", "report")
"""What changes something is run once, on the terminal."""
_MOST_LINES = 24
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r(?!\n)|\x1b\][^\x07]*\x07")
HEAD = f"""# What commands print

What the commands of the README print on a terminal of {WIDTH} columns, and on a pipe, where one row is one line.
`python docs/transcript.py docs/transcript.md` writes this page, and CI looks that it agrees, figures and times apart.
Longer outputs end with how many lines more there are.
"""


def commands() -> list[list[str]]:
    """Return the commands of the README's list, as lists of words."""
    import shlex

    block = re.search(r"^## Use.*?```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert block is not None
    return [shlex.split(line, comments=True)[1:] for line in block[1].splitlines() if line.startswith("segbench ")]


def draw(folder: Path) -> None:
    """Draw what the commands need: six images of round nuclei with masks and an index, and a segmentation of them."""
    rows = ["image,mask,split,tissue"]
    ys, xs = np.mgrid[:96, :96]
    for number in range(6):
        mask = np.zeros((96, 96), np.uint8)
        for label, (y, x) in enumerate(np.ndindex(3, 3), start=1):
            mask[np.hypot(ys - 16 - 32 * y, xs - 16 - 32 * x) < 7 + (number + x) % 4] = label
        noise = np.random.default_rng(number).integers(0, 40, mask.shape)
        split, tissue = ("train", "val", "test")[number % 3], ("lung", "skin")[number // 3]
        rows.append(f"{number}.png,masks/{number}.png,{split},{tissue}")
        for home, pixels in {
            "my-images": (mask > 0) * 180 + noise, "my-images/masks": mask, "truth": mask,
            "predicted": np.roll(mask, 1, axis=0),
        }.items():  # fmt: skip
            (folder / home).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / home / f"{number}.png")
    (folder / "my-images" / "index.csv").write_text("\n".join(rows) + "\n")


def on_a_terminal(words: list[str], folder: Path) -> str:
    """Return what a command prints on a terminal of 80 columns, without colours."""
    here, there = pty.openpty()
    told = b""
    variables = {**_variables(folder), "COLUMNS": str(WIDTH), "LINES": "40", "NO_COLOR": "1", "TERM": "dumb"}
    with subprocess.Popen(
        [*PROGRAM, *words], stdin=subprocess.DEVNULL, stdout=there, stderr=there, cwd=folder, env=variables
    ) as process:
        os.close(there)
        while True:
            try:
                part = os.read(here, 65536)
            except OSError:
                break
            if not part:
                break
            told += part
        assert process.wait(600) == 0, told.decode()
    os.close(here)
    return told.decode().replace("\r\n", "\n")


def on_a_pipe(words: list[str], folder: Path) -> str:
    """Return what a command prints on a pipe."""
    done = subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, cwd=folder, env=_variables(folder), timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def page(folder: Path) -> str:
    """Run all commands in an empty folder, and return the page."""
    draw(folder)
    return "\n".join((HEAD, *_parts(folder)))


def _parts(folder: Path) -> Iterator[str]:
    for words in commands():
        line = " ".join(f'"{word}"' if " " in word else word for word in words)
        told = on_a_terminal(words, folder)
        yield f"## {' '.join(words[:2] if words[0] in ('grid', 'data', 'methods', 'analyze') else words[:1])}\n"
        yield _block(f"$ segbench {line}", told, folder)
        if not line.startswith(_ONCE):
            yield _block(f"$ segbench {line} | cat", on_a_pipe(words, folder), folder)


def _block(command: str, told: str, folder: Path) -> str:
    """Return a fenced block; paths of this machine are left out, and what is beyond some lines is counted."""
    text = _CONTROL.sub("", told).replace(f"{folder.resolve()}/", "").replace(str(folder.resolve()), ".")
    lines = [line.rstrip() for line in text.splitlines()]
    lines = [line for n, line in enumerate(lines) if line or (n and lines[n - 1])]
    lines = [line for line in lines if "━" not in line]
    while lines and not lines[0]:
        del lines[0]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 4], f"... {len(lines) - _MOST_LINES + 4} lines more"]
    return "```text\n" + "\n".join([command, *lines]).rstrip() + "\n```\n"


def _variables(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SEGBENCH_CACHE": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


def masked(text: str) -> str:
    """Return a page without what differs from run to run: numbers, ids, the width of columns.

    Examples
    --------
    >>> masked("run  0a1b2c3d4e5f took 12.5 s") == masked("run 9f0000000000 took  3 s")
    True
    """
    text = re.sub(r"\b[0-9a-f]{12,}\b", "ID", text)
    text = re.sub(r"\d[\d,.]*(e[+-]?\d+)?", "N", text)
    lines = [line for line in text.splitlines() if line.strip(" ─") and "━" not in line]
    return "\n".join(" ".join(line.replace("─", "").split()) for line in lines)


def main() -> None:
    """Write the page to the file that is named."""
    with tempfile.TemporaryDirectory(prefix="segbench-transcript-") as folder:
        Path(sys.argv[1]).write_text(page(Path(folder)))


if __name__ == "__main__":
    main()
