"""Writes the Markdown page of a check on a GPU from what its parts left: ``python scripts/gpu_page.py OUT``.

The machine's own facts are taken from OUT/machine.md, which is written where it is not there.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    "torch", "torchvision", "onedl-mmdetection", "onedl-mmcv", "sal-detectron2", "cellpose", "segment-anything", "numpy"
)  # fmt: skip


def machine() -> Iterator[str]:
    """Yield what the figures were taken on."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        gpus = ""
    installed = []
    for name in DISTRIBUTIONS:
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            installed.append(f"no {name}")
    yield f"- GPU: {'; '.join(gpus.splitlines()) or 'none, run on the processor'}; {os.cpu_count()} cores"
    yield f"- Python {platform.python_version()}, {', '.join(installed)}"
    yield f"- {datetime.now(UTC):%Y-%m-%d}"


def tests(report: Path) -> Iterator[str]:
    """Yield a table of the tests: outcome, seconds, and what each has measured."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in report.read_text().splitlines()]
    counts = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in ("passed", "failed", "skipped")}
    yield f"{', '.join(f'{n} {outcome}' for outcome, n in counts.items())}."
    yield ""
    yield "| test | outcome | seconds | measured |"
    yield "| --- | --- | --- | --- |"
    for row in sorted(rows, key=lambda row: str(row["test"])):
        told = ", ".join(f"{key} {value}" for key, value in row["measured"].items())
        why = row["reason"].replace("|", "/").replace("\n", " ")[:200]
        yield f"| {row['test']} | {row['outcome']} | {row['seconds']:.0f} | {'; '.join(filter(None, (told, why)))} |"


def main(out: Path) -> None:
    """Print the page."""
    about = out / "machine.md"
    if not about.exists():
        about.write_text("\n".join(machine()) + "\n")
    made = "Made by `scripts/gpu_check.sh`; see [how](#how-this-page-is-made)."
    lines = ["# On a GPU", "", made, "", about.read_text()]
    if (out / "tests.jsonl").exists():
        lines += ["## Tests", "", *tests(out / "tests.jsonl"), ""]
    if (out / "bench.md").exists():
        lines += ["## Speed", "", (out / "bench.md").read_text().strip(), ""]
    how = Path(__file__).with_name("gpu_page.md")
    print("\n".join(lines) + "\n" + how.read_text(), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
