"""The loop of InstanSeg's training, with upstream's network, losses and measure of validation.

Upstream's own loop stands in a module that imports its augmentations, and with them torchvision, of which there is no
build for this PyTorch on processors. Its five statements a step are the same here. Imported inside functions only: it
needs torch and instanseg.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from instanseg.utils.metrics import matching_dataset_torch

from segbench.methods.base import Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.instanseg.windows import Crops

IOUS = np.linspace(0.5, 0.95, 10)
"""At which upstream's F1 on validation windows is taken, and its mean."""
_OFTEN = 50
"""Steps between two tellings."""

Find = Callable[[Any], npt.NDArray[np.int32]]


def build(
    settings: Mapping[str, Any], channels: int, device: Any
) -> tuple[Any, Any]:  # fmt: skip
    """Return upstream's network with its pixel classifier, and upstream's loss, which also finds the instances."""
    from instanseg.utils.loss.instanseg_loss import InstanSeg as Loss
    from instanseg.utils.model_loader import build_model_from_dict

    loss = Loss(
        binary_loss_fn_str="lovasz_hinge", seed_loss_fn=settings["seed_loss"], device=device,
        n_sigma=settings["n_sigma"], cells_and_nuclei=False, window_size=settings["window"],
    )  # fmt: skip
    model = build_model_from_dict(
        {
            "model_str": "InstanSeg_UNet", "dim_in": channels, "dim_out": loss.dim_out, "multihead": False,
            "cells_and_nuclei": False, "dim_coords": 2, "dim_seeds": 1, "n_sigma": settings["n_sigma"],
            "layers": list(settings["layers"]), "norm": "BATCH", "dropprob": 0.0,
        }
    )  # fmt: skip
    return loss.initialize_pixel_classifier(model, MLP_width=settings["mlp_width"]).to(device), loss


def f1(truth: Sequence[npt.NDArray[Any]], found: Sequence[npt.NDArray[Any]]) -> float:
    """Return upstream's measure: the mean over IOUS of the pooled F1."""
    stats = matching_dataset_torch(list(truth), list(found), thresh=IOUS)
    return float(np.mean([one.f1 for one in stats]))


class Training:
    """One training, which may be taken up again after any of its epochs.

    Parameters
    ----------
    model, loss
        As ``build`` returns them.
    crops
        What is trained on.
    settings
        The run's.
    seed
        The run's.
    """

    def __init__(self, model: Any, loss: Any, crops: Crops, settings: Mapping[str, Any], seed: int) -> None:
        self._model, self._loss, self._crops, self._settings, self._seed = model, loss, crops, settings, seed
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        self._optimizer = kinds[settings["optimizer"]](
            model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
        )
        self._best: dict[str, Any] = {"f1": -1.0, "model": None}
        self._done = 0

    def run(
        self, epochs: int, progress: Progress, checkpoints: Checkpoints, validate: Callable[[], float] | None
    ) -> None:
        """Train; ``validate`` gives F1 on validation windows, None to keep the last weights."""
        self._resume(checkpoints.latest())
        hot = min(self._settings["hot_start_epochs"], epochs // 2)
        for epoch in range(self._done, epochs):
            self._losses(hot=epoch < hot)
            # what upstream draws at random in its loss is each epoch's own, however often the training was resumed
            torch.manual_seed(int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]))
            self._epoch(epoch, epochs, progress)
            if validate is not None:
                self._keep_better(validate())
            self._done = epoch + 1
            if checkpoints.due():
                with checkpoints.writing() as folder:
                    torch.save(self._state(), Path(folder) / "state.pth")
        if self._best["model"] is not None:
            self._model.load_state_dict(self._best["model"])

    def _epoch(self, epoch: int, epochs: int, progress: Progress) -> None:
        self._model.train()
        device, waiting = next(self._model.parameters()).device, []
        steps = self._crops.steps
        for n, (images, labels) in enumerate(self._crops.epoch(epoch), start=1):
            truth = torch.from_numpy(labels).to(device)
            loss = self._loss.forward(self._model(torch.from_numpy(images).to(device)), truth).mean()
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings["clip_norm"])
            self._optimizer.step()
            waiting.append(loss.detach())
            if n == steps or n % _OFTEN == 0:
                mean = float(torch.stack(waiting).mean())
                waiting.clear()
                done = epoch * steps + n
                progress.train(epoch=epoch + 1, epochs=epochs, step=done, steps=epochs * steps, loss=mean)

    def _losses(self, *, hot: bool) -> None:
        """Choose the losses: upstream begins with simple ones, for the others are slow to find a first cell."""
        self._loss.update_seed_loss("binary_xloss" if hot else self._settings["seed_loss"])
        self._loss.update_binary_loss("dice_loss" if hot else "lovasz_hinge")

    def _keep_better(self, score: float) -> None:
        if score > self._best["f1"]:
            state = {key: value.detach().clone() for key, value in self._model.state_dict().items()}
            self._best = {"f1": score, "model": state}

    def _state(self) -> dict[str, Any]:
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "done": self._done,
        }

    def _resume(self, folder: Path | None) -> None:
        if folder is None:
            return
        state = torch.load(folder / "state.pth", map_location="cpu", weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best, self._done = state["best"], state["done"]
