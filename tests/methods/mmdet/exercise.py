"""Run by the torch environment's Python: takes methods through two steps, a save, a reload and a prediction each.

    python exercise.py CLASS JOB.json [CLASS JOB.json ...]

Writes exercise.json beside each job: losses, and the parameters that had no gradient, or one that was not finite, in
the last step; or what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import segbench.methods.mmdet as family
from segbench.methods.base import ImageStack, Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job


def exercise(class_name: str, job: Job) -> dict[str, Any]:
    """Return what was seen of one method."""
    assert job.train is not None
    method: Any = getattr(family, class_name)()
    method.import_library(job)
    method.load(job, ImageStack(job.train), None)
    from mmengine.hooks import Hook

    gradients: dict[str, dict[str, bool]] = {}

    class Look(Hook):  # type: ignore[misc]
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
            # kept by tensor hooks, since the optimiser clears gradients: one that stays out is one without a gradient
            for name, parameter in runner.model.named_parameters():
                gradients.setdefault(name, {"came": False, "finite": True, "moved": False})
                if batch_idx == 0 and parameter.requires_grad:
                    parameter.register_hook(lambda grad, name=name: note(name, grad))

    def note(name: str, grad: Any) -> None:
        seen = gradients[name]
        seen["came"] = True
        seen["finite"] &= bool(grad.isfinite().all())
        seen["moved"] |= bool((grad != 0).any())

    method._runner.register_hook(Look())
    progress = Progress(Path(os.devnull))
    method.train(job, progress, Checkpoints(None))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text) / "model"
        folder.mkdir()
        method.save(folder)
        again: Any = getattr(family, class_name)()
        again.import_library(job)
        again.restore(job, folder)
    stack = ImageStack(job.predict["test"])
    before, after = (list(each.predict(job, stack)) for each in (method, again))
    same = all(
        len(a.counts) == len(b.counts)
        and np.allclose(a.scores, b.scores, atol=1e-5)
        and all(np.array_equal(x, y) for x, y in zip(a.counts, b.counts, strict=True))
        for a, b in zip(before, after, strict=True)
    )
    states = [each._model.state_dict() for each in (method, again)]
    report = {
        "losses": [point["loss"] for point in progress.history],
        "parameters": method.n_parameters(),
        "without": sorted(name for name, seen in gradients.items() if not seen["came"]),
        "not_finite": sorted(name for name, seen in gradients.items() if not seen["finite"]),
        "zero": sorted(name for name, seen in gradients.items() if seen["came"] and not seen["moved"]),
        "instances": [len(each.counts) for each in after],
        "same_after_reload": same,
        # after two steps some networks find nothing that could differ
        "same_state": states[0].keys() == states[1].keys() and all(states[0][k].equal(states[1][k]) for k in states[0]),
    }
    if method.recipe.searches_dilations:
        dilations = again._extra_state()["dilations"]
        report |= {"searched": len(dilations), "dilations": sorted({own for (own, _), *_ in dilations.values()})}
    return report


def main(*arguments: str) -> None:
    # one process for all: the libraries take longer to import than a small step does
    for class_name, path in zip(arguments[::2], map(Path, arguments[1::2]), strict=True):
        try:
            report = exercise(class_name, Job.read(path))
        except Exception:
            report = {"error": traceback.format_exc()}
        path.with_name("exercise.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
