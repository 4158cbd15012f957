"""Lets bioimage.io's core run a method's model: a PyTorch module that segments with the method, weights and all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack, Method
from segbench.methods.card import Budget
from segbench.methods.job import Arrays, Job, Task
from segbench.methods.predictions import Instances, LabelInstances


def network(
    method: str,
    task: Mapping[str, Any],
    settings: Mapping[str, Any],
    budget: Mapping[str, Any],
    weights: str | None = None,
    files: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Any:
    """Return a module whose forward pass is the method's whole prediction; its weights come by ``load_state_dict``.

    It runs where the method's libraries and segbench are installed, on the processor. A package's description names it
    as the architecture of its weights.

    Parameters
    ----------
    method
        ``module:Class``, one of segbench's own methods.
    task, settings, budget, seed
        As in a job.
    weights
        The name of the file of weights in the model's folder; None for a method that is not trained, empty
        where they are in no format that PyTorch reads.
    files
        The other files of that folder, all JSON, by name.

    Returns
    -------
    A ``torch.nn.Module`` from images (B, C, H, W), float32 in 0..1, to label maps (B, H, W), int32; of masks that
    overlap the one with the higher score is on top.
    """
    import torch

    job = Job(
        run_id="package", method=method,
        task=Task(task["name"], task["dataset"], tuple(task["channels"]), task["target"]),
        budget=Budget(**budget), seed=seed, output="", settings=dict(settings),
    )  # fmt: skip

    class Network(torch.nn.Module):  # type: ignore[misc]
        """One method, with one model."""

        def __init__(self) -> None:
            super().__init__()
            self._method: Method = _method(method)

        def load_state_dict(self, state: Mapping[str, Any], *_: Any, **__: Any) -> None:
            """Take the weights as the method saved them."""
            if weights == "":
                raise ValueError("the weights of this model are in no format of bioimage.io: segbench applies it")
            self._method.import_library(job)
            if weights is None:
                self._method.load(job, None, None)
                return
            with tempfile.TemporaryDirectory(prefix="segbench-model-") as text:
                folder = Path(text)
                for name, content in (files or {}).items():
                    (folder / Path(name).name).write_text(json.dumps(content))
                torch.save(dict(state), folder / Path(weights).name)
                self._method.restore(job, folder)

        def forward(self, images: Any) -> Any:
            """Return the label maps."""
            with tempfile.TemporaryDirectory(prefix="segbench-images-") as folder:
                path = Path(folder) / "images.npy"
                np.save(path, images.detach().cpu().numpy().astype(np.float32))
                stack = ImageStack(Arrays(str(path), tuple(range(images.shape[1]))))
                found = [label_map(one, stack.size) for one in self._method.predict(job, stack)]
            return torch.from_numpy(np.stack(found))

    return Network()


def label_map(instances: Instances, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Return instances as a label map (H, W); a pixel of several masks is the highest score's, the first of equals.

    Examples
    --------
    >>> from segbench import MaskInstances
    >>> two = MaskInstances([np.array([0, 3, 1], np.uint32), np.array([2, 2], np.uint32)], np.array([0.5, 0.9]))
    >>> label_map(two, (2, 2)).tolist()
    [[1, 2], [1, 2]]
    """
    if isinstance(instances, LabelInstances):
        return np.asarray(instances.labels, np.int32)
    flat = np.zeros(shape[0] * shape[1], np.int32)
    for k in np.argsort(-np.asarray(instances.scores), kind="stable")[::-1]:
        edges = np.cumsum(instances.counts[k], dtype=np.int64)
        for start, stop in zip(edges[0::2], edges[1::2], strict=False):
            flat[start:stop] = k + 1
    return np.ascontiguousarray(flat.reshape(shape[1], shape[0]).T)


def _method(name: str) -> Method:
    import importlib

    module, _, kind = name.partition(":")
    if not module.startswith("segbench.methods."):
        raise ValueError(f"{name} is none of segbench's own methods")
    found: Method = getattr(importlib.import_module(module), kind)()
    return found
