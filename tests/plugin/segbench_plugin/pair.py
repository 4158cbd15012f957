"""A third party's PyTorch method for the engine's tests: one grey value, learned by all of torchrun's processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segbench.methods import Budget, Card, Checkpoints, ImageStack, Job, LabelInstances, Method, Progress, Resources


class Pair(Method):
    """Learns the mean of the training images by gradient descent; every process has its own share of them."""

    card = Card(
        name="pair",
        title="Pair",
        family="baseline",
        environment="torch",
        category="classical",
        trained=True,
        attention=False,
        budget=Budget(batch_size=4, epochs=20),
        resources=Resources(num_gpus=2, num_cpus=2, memory_gb=1.0),
        libraries=("torch",),
        score_rule="1 for every instance",
        data_parallel="torchrun",
    )

    def import_library(self, job: Job) -> None:
        """Import PyTorch and join the other processes."""
        from segbench.methods.torch_devices import prepare_torch

        self._device = prepare_torch(job)

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Take this process's share of the images."""
        import torch

        assert train is not None
        mine = range(job.rank(), len(train), job.devices.processes)
        self._images = torch.tensor(np.stack([train[n].mean() for n in mine]), dtype=torch.float32)

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Descend, with the gradients averaged over the processes by PyTorch."""
        import torch
        from torch import distributed
        from torch.nn.parallel import DistributedDataParallel

        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        together = distributed.is_initialized()
        parallel = DistributedDataParallel(model) if together else model
        optimizer = torch.optim.SGD(parallel.parameters(), lr=0.2)
        for epoch in range(1, (job.budget.epochs or 1) + 1):
            optimizer.zero_grad()
            loss = ((parallel(torch.ones(len(self._images), 1))[:, 0] - self._images) ** 2).mean()
            loss.backward()
            optimizer.step()
            progress.train(epoch=epoch, epochs=job.budget.epochs, loss=float(loss))
        self._value = float(model.weight)
        seen = {
            "rank": job.rank(), "processes": distributed.get_world_size() if together else 1, "value": self._value,
            "mine": float(self._images.mean()), "windows": len(self._images), "pid": os.getpid(),
            "backend": distributed.get_backend() if together else None,
        }  # fmt: skip
        (Path(job.output) / f"rank-{job.rank()}.json").write_text(json.dumps(seen))

    def save(self, folder: Path) -> None:
        """Write the value."""
        np.save(folder / "value.npy", self._value)

    def restore(self, job: Job, folder: Path) -> None:
        """Read the value."""
        self._value = float(np.load(folder / "value.npy"))

    def predict(self, job: Job, images: ImageStack) -> Iterator[LabelInstances]:
        """Yield one instance an image: all that is above the value."""
        for image in images:
            yield LabelInstances((image[0] > self._value).astype(np.int32), np.ones(1))
