"""Draws docs/images/max-detections.svg: AP50 of dense fields by the limit of detections an image.

    SEGBENCH_TESTDATA=... python docs/metrics_figure.py

Reads two published CODEX fields (expert 1's cells as truth, Cellpose 0.6.1's as predictions) and the benchmarks'
synthetic maps.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from label_map_sets import livecell_sized, tissuenet_sized

from segbench.engine.metrics import evaluate_labels

LIMITS = (1, 3, 10, 30, 100, 300, 1000, 2000, 3000, 5000)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 56, 236, 40, 52
COLOURS = ("#2a6fbb", "#c2571a", "#3f8f4f")


def curves() -> dict[str, list[float]]:
    """Return AP50 at every limit, by the name of the set."""
    data = Path(os.environ["SEGBENCH_TESTDATA"]) / "codex-two-experts"
    fields = sorted(path for path in data.iterdir() if path.is_dir())
    truth, found = (
        [tifffile.imread(field / f"mask_{who}.tif") for field in fields] for who in ("expert1", "Cellpose-0.6.1")
    )
    rng = np.random.default_rng(0)
    scores = [rng.random(np.count_nonzero(np.unique(labels))) for labels in found]
    synthetic = {"TissueNet-sized, 256x256": tissuenet_sized(200), "LIVECell-sized, 520x704": livecell_sized(100)}
    sets = {name: (list(maps.truth), list(maps.predictions), maps.scores) for name, maps in synthetic.items()}
    sets["CODEX tissue, 1008x1344"] = (truth, found, scores)
    result = {}
    for name, maps in sets.items():
        cells = evaluate_labels(*maps).images.n_truth.mean()
        result[f"{name}: {cells:.0f} cells an image"] = [
            evaluate_labels(*maps, max_detections=limit).pooled.ap50 for limit in LIMITS
        ]
    return result


def draw(lines: dict[str, list[float]]) -> str:
    """Return the figure as SVG."""
    span = np.log10(LIMITS[-1])

    def x(limit: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * np.log10(limit) / span

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">AP50 by the limit of detections an image (maxDets)</text>',
    ]
    for value in np.linspace(0, 1, 6):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>'
        )
    for limit in (1, 10, 100, 1000, 3000):
        parts.append(
            f'<line x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#bbb"'
            f' stroke-dasharray="{"4 3" if limit in (100, 3000) else "0"}"'
            f' opacity="{1 if limit in (100, 3000) else 0.4}"/>'
            f'<text x="{x(limit):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{limit}</text>'
        )
    parts.append(f'<text x="{x(100) - 5:.1f}" y="{TOP + 14}" text-anchor="end" fill="#666">COCO: 100</text>')
    parts.append(f'<text x="{x(3000) - 5:.1f}" y="{TOP + 14}" text-anchor="end" fill="#666">here: 3000</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">maxDets</text>')
    used: list[float] = []
    for colour, (name, values) in zip(COLOURS, lines.items(), strict=True):
        points = " ".join(f"{x(limit):.1f},{y(value):.1f}" for limit, value in zip(LIMITS, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
        set_name, cells = name.split(": ")
        height = y(values[-1])
        while any(abs(height - other) < 38 for other in used):
            height += 2
        used.append(height)
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{height:.1f}" fill="{colour}">{set_name}</text>'
            f'<text x="{WIDTH - RIGHT + 8}" y="{height + 15:.1f}" fill="{colour}">{cells}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    found = curves()
    for name, values in found.items():
        sys.stdout.write(f"{name}: {', '.join(f'{limit} {v:.4f}' for limit, v in zip(LIMITS, values, strict=True))}\n")
    (Path(__file__).parent / "images" / "max-detections.svg").write_text(draw(found))
