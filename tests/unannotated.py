"""Images that nobody has annotated: LIVECell's, cropped, where the real data are; drawn ones where not."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import tifffile

from segbench.engine.data.synthetic import SyntheticSource


def write_unannotated(folder: Path, n: int, side: int = 192) -> Path:
    """Write n images (side, side) into a new folder and return it."""
    folder.mkdir()
    real = os.environ.get("SEGBENCH_TESTDATA")
    if real:
        livecell = Path(real) / "livecell-1pct"
        annotated = {
            image["file_name"]
            for path in livecell.glob("livecell_coco_*.json")
            for image in json.loads(path.read_text())["images"]
        }
        paths = [path for path in sorted((livecell / "images").rglob("*.tif")) if path.name not in annotated]
        images = [tifffile.imread(path) for path in paths[:: len(paths) // n]]
    else:
        warnings.warn("SEGBENCH_TESTDATA is not set: drawn images stand for LIVECell's", stacklevel=2)
        source = SyntheticSource({"layout": "livecell", "seed": 77, "test": -(-n // 8)})
        images = [load().pixels[0] for load in source.images("test")]
    for number, image in enumerate(images[:n]):
        tifffile.imwrite(folder / f"unseen{number}.tif", np.ascontiguousarray(image[:side, :side]))
    return folder
