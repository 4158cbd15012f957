"""Gives StarDist's training batches in upstream's order and by its chances, made by several threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.ahead import made_ahead
from segbench.methods.stardist_targets import cell_distances, ray_lengths

_Patches = tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]


def use_threads(model2d: Any, workers: int) -> None:
    """Let upstream's training take its batches from threads, and its targets from ``stardist_targets``.

    Whatever is drawn by chance (the windows, the patches, what the augmenter does) is drawn in upstream's order before
    the threads see it: the batches are the same for any number of them.

    Parameters
    ----------
    model2d
        The module ``stardist.models.model2d``, which is changed for this process.
    workers
        Threads.
    """
    model2d.edt_prob, model2d.star_dist = cell_distances, ray_lengths
    for target in (cell_distances, ray_lengths):
        target(np.eye(4, dtype=np.int32))  # compiled now, not in the first step
    upstream = getattr(model2d.StarDistData2D, "upstream", model2d.StarDistData2D)

    class Batches(upstream):  # type: ignore[misc, valid-type]
        """Upstream's batches; ``batches[n]`` makes one as upstream does."""

        def __iter__(self) -> Iterator[Any]:
            if self.shape_completion or self.n_classes is not None:
                raise ValueError("neither shape completion nor classes are known here")
            drawn = (_draw(self, n, model2d.sample_patches) for n in range(len(self)))
            return made_ahead(drawn, lambda patches: _make(self, patches), workers)

    Batches.upstream = upstream
    model2d.StarDistData2D = Batches


def _draw(data: Any, n: int, sample_patches: Any) -> _Patches:
    """Return the patches of a batch, augmented."""
    patches = []
    for k in data.batch(n):
        image, labels = data.X[k], data.Y[k]
        arrays = (labels, *data.channels_as_tuple(image))
        found = sample_patches(arrays, patch_size=data.patch_size, n_samples=1, valid_inds=data.get_valid_inds(k))
        channels = [channel[0] for channel in found[1:]]
        patches.append((channels[0] if data.n_channel is None else np.stack(channels, axis=-1), found[0][0]))
    images, labels = zip(*[data.augmenter(*patch) for patch in patches], strict=True)
    return list(images), list(labels)


def _make(data: Any, patches: _Patches) -> Any:
    """Return a batch as upstream has it: (images,), (nearness to the middle, rays with that)."""
    images, labels = patches
    x = np.stack(images)
    every_y, every_x = data.grid
    near = np.stack([cell_distances(one[::every_y, ::every_x]) for one in labels])[..., np.newaxis]
    rays = np.stack([ray_lengths(one, data.n_rays, data.grid) for one in labels])
    return (x if x.ndim == 4 else x[..., np.newaxis],), (near, np.concatenate([rays, near], axis=-1))
