"""Writes a StarDist model as TensorFlow's SavedModel, which bioimage.io's own post-processing turns into instances."""

from __future__ import annotations

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import Network, OtherWeights

BUNDLE, EXPECTED = "saved-model.zip", "network-output.npy"
BORDER = 2
"""Pixels of the network's grid along the image's border in which StarDist's own prediction takes no object."""
SHORTEST = 1e-3
"""Pixels: no distance to a border is shorter."""
_EPSILON = 1e-20  # csbdeep's
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def fits(model: Any, size: tuple[int, int]) -> bool:
    """Return whether windows need no padding, which the network alone does not do."""
    return all(pixels % step == 0 for pixels, step in zip(size, model._axes_div_by("YX"), strict=True))


def write_bundle(
    model: Any, tensorflow: Any, stardist: Any, window: npt.NDArray[np.float32], percentiles: tuple[float, float],
    normalised: npt.NDArray[np.float32], folder: Path,
) -> OtherWeights:  # fmt: skip
    """Write the network, from a normalised window (B, C, H, W) to ``[probability, distances]``, and what it gives.

    Parameters
    ----------
    model
        A ``StarDist2D`` with its thresholds.
    tensorflow, stardist
        The modules.
    window
        (C, H, W), as the package holds it: only its size and channels count.
    percentiles
        Which StarDist's normalisation maps to 0 and 1.
    normalised
        (H, W) or (H, W, C): the window after it.
    folder
        Where the files go.
    """
    channels, rows, columns = window.shape
    network, grid = model.keras_model, tuple(int(step) for step in model.config.grid)
    thresholds = {"prob_threshold": float(model.thresholds.prob), "nms_threshold": float(model.thresholds.nms)}

    def serve(image: Any) -> dict[str, Any]:
        probability, distances = network(tensorflow.transpose(image, (0, 2, 3, 1)), training=False)
        # as StarDist itself does before it suppresses what overlaps
        distances = tensorflow.maximum(distances, SHORTEST)
        return {"instances": tensorflow.concat([probability, distances], axis=-1)}

    bundle = tensorflow.Module(name="stardist")
    bundle.network = network
    takes = tensorflow.TensorSpec((None, channels, None, None), tensorflow.float32, name="image")
    bundle.serve = tensorflow.function(serve, input_signature=[takes])
    with TemporaryDirectory(prefix="stardist-") as text:
        tensorflow.saved_model.save(bundle, text, signatures={"serving_default": bundle.serve})
        _pack(Path(text), folder / BUNDLE)
    image = np.moveaxis(np.atleast_3d(normalised), -1, 0)[None]
    raw = bundle.serve(tensorflow.constant(image, tensorflow.float32))["instances"].numpy()[0]
    points, probabilities, distances = stardist.non_maximum_suppression(
        raw[..., 1:], raw[..., 0], grid=grid, b=BORDER,
        prob_thresh=thresholds["prob_threshold"], nms_thresh=thresholds["nms_threshold"],
    )  # fmt: skip
    labels = stardist.polygons_to_label(distances, points, prob=probabilities, shape=(rows, columns))
    np.save(folder / EXPECTED, labels.astype(np.int32)[None, ..., None])
    low, high = percentiles
    scaled = {"axes": ["y", "x"], "min_percentile": low, "max_percentile": high, "eps": _EPSILON}
    stars = {**thresholds, "n_rays": int(model.config.n_rays), "grid": list(grid), "b": BORDER}
    return OtherWeights(
        BUNDLE,
        "the network as TensorFlow's SavedModel: object probability and distances, which StarDist's post-processing "
        "makes instances of",
        {"tensorflow_version": str(tensorflow.__version__)},
        Network(
            EXPECTED,
            preprocessing=({"id": "scale_range", "kwargs": scaled},),
            postprocessing=({"id": "stardist_postprocessing", "kwargs": stars},),
        ),
    )


def _pack(folder: Path, target: Path) -> None:
    """Write a folder's files into a zip file that is the same each time."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            if path.name != "fingerprint.pb":  # a number that is drawn anew each time, and that nobody needs
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _LONG_AGO)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
