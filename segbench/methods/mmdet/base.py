"""The base of the family: a job's windows to MMDetection's model, MMEngine's Runner, and back to instances."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.methods import torch_devices
from segbench.methods.base import ImageStack, Method, Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job
from segbench.methods.mmdet import receptive
from segbench.methods.mmdet.config import Training, build_config
from segbench.methods.mmdet.mmcv_ext import ensure_mmcv_ext
from segbench.methods.mmdet.old_distutils import ensure_distutils
from segbench.methods.mmdet.pretrained import find_weights
from segbench.methods.mmdet.zoo import RECIPES, Recipe
from segbench.methods.planes import Normalisation, fit_normalisation
from segbench.methods.predictions import MaskInstances

_WEIGHTS = "weights.pth"
TOGETHER = 8
"""Windows that go through the network together in prediction on a GPU."""


class MMDetMethod(Method):
    """A method of MMDetection; what differs between them is in their cards and recipes."""

    prediction_kind = "masks"
    _average: Any = None
    """Keeps a running average of the weights while a method trains that has one."""

    @property
    def recipe(self) -> Recipe:
        """The method's row of the table."""
        return RECIPES[self.card.name]

    def import_library(self, job: Job) -> None:
        """Import torch and MMDetection; set threads, memory and seeds, and join the other processes."""
        self._device = torch_devices.prepare_torch(job)
        ensure_mmcv_ext()
        ensure_distutils()
        import mmdet.models  # noqa: F401 - registers them
        import mmengine
        from mmdet import registry

        # A registry imports the rest of mmdet when it is first asked; that needs imgaug, for lane detection alone
        for each in vars(registry).values():
            if isinstance(each, mmengine.Registry):
                each._imported = True
        # MMEngine takes the local rank for a place in CUDA_VISIBLE_DEVICES, and what stands there for a number; neither
        # holds where processes share a GPU, or GPUs are named by their UUIDs
        log: Any = importlib.import_module("mmengine.logging.logger")
        log._get_device_id = lambda: self._device.index or 0
        mmengine.MMLogger.get_current_instance().setLevel("WARNING")  # else a line for every parameter that is drawn
        mmengine.DefaultScope.get_instance(f"segbench-{time.time_ns()}", scope_name="mmdet")
        import segbench.methods.mmdet._modules as modules

        self._modules: Any = modules

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:  # noqa: ARG002
        """Choose the windows that have cells, fit the normalisation and build the model and MMEngine's Runner."""
        if train is None or job.train is None:
            raise ValueError(f"{self.card.title} needs training windows with labels")
        processes, batch = job.devices.processes, job.budget.batch_size
        if batch % processes:
            raise SegbenchError(
                f"a batch of {batch} cannot be shared by {processes} processes; give a multiple of {processes}"
            )
        self._used = [n for n in range(len(train)) if train.labels(n).any()]
        if not self._used:
            raise ValueError("no training window has a cell")
        self._normalisation = fit_normalisation(train, self._used, job.settings["normalisation"])
        training = Training(job.budget.epochs or 1, -(-len(self._used) // batch), batch)
        on_gpu = self._device.type == "cuda"
        config = build_config(
            self.recipe, job.settings, self._normalisation, training,
            weights=find_weights(job.settings["pretrained"], self.recipe, self.card.name),
            sync_norm=processes > 1 and on_gpu, fused=on_gpu, precision=torch_devices.precision_of(job, self._device),
        )  # fmt: skip
        hooks = self._build(config, job, training.epochs)
        self._model.init_weights()
        _quiet_mask_heads(self._model)
        self._runner = self._build_runner(job, config, training, hooks)
        if job.settings.get("averaging"):
            self._average = self._modules.AverageHook(self._model, job.settings["averaging"])
            self._runner.register_hook(self._average)
        self._arrange(job, train.size)

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Train by MMEngine's epoch loop."""
        watch = self._modules.WatchHook(progress, checkpoints, job.seed, self._take_extra_state)
        self._runner.register_hook(watch)
        self._runner.register_hook(self._modules.KeepHook(checkpoints, self._extra_state, watch))
        self._runner.train()
        if self._average is not None:
            self._average.impose()
            self._average = None
        if self._graphed:
            self._graphs.launch_one_by_one(self._model)
        # the optimiser's state is as large as two models: it goes before prediction begins
        del self._runner

    def save(self, folder: Path) -> None:
        """Write the weights with all that is needed to predict, as plain data that loads safely."""
        import torch

        meta = {"normalisation": dataclasses.asdict(self._normalisation), "extra": self._extra_state()}
        state = {key: value.cpu() for key, value in self._model.state_dict().items()}
        torch.save({"state_dict": state, "meta": meta}, folder / _WEIGHTS)
        shutil.rmtree(folder.parent / "work", ignore_errors=True)

    def restore(self, job: Job, folder: Path) -> None:
        """Load what ``save`` wrote into a model of the job's settings."""
        import torch

        kept = torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True)
        self._normalisation = Normalisation(**kept["meta"]["normalisation"])
        self._build(build_config(self.recipe, job.settings, self._normalisation), job, 0)
        self._take_extra_state(kept["meta"]["extra"])
        self._model.load_state_dict(kept["state_dict"])
        self._model.to(self._device)
        self._lay_out()

    def predict(self, job: Job, images: ImageStack) -> Iterator[MaskInstances]:
        """Yield each window's instances; one without a pixel is left out."""
        import torch

        from segbench.methods.mmdet import _prediction as prediction

        model = self._model.eval()
        on_gpu = self._device.type == "cuda"
        together = self.at_once(TOGETHER if on_gpu else 1)

        def found() -> Iterator[MaskInstances]:
            for first in range(0, len(images), together):
                numbers = range(first, min(first + together, len(images)))
                batch = self._modules.collate([self._modules.sample(images[n], None, n) for n in numbers])
                with torch.no_grad():
                    for result in model.test_step(batch):
                        instances = result.pred_instances
                        yield prediction.to_instances(
                            instances.masks, instances.scores, job.settings["score_threshold"]
                        )

        if not on_gpu:
            yield from found()
            return
        # so that the device works while what it has found is written; a thread begins on the first device
        yield from prediction.ahead(found(), 2 * together, lambda: torch.cuda.set_device(self._device))

    def n_parameters(self) -> int:
        """Return how many numbers of the model are trained."""
        return sum(p.numel() for p in self._model.parameters() if p.requires_grad)

    def used_windows(self) -> Sequence[int] | None:
        """Return the windows with cells."""
        return self._used

    def gpu_names(self) -> list[str]:
        """Return the names of the GPUs of all processes."""
        return torch_devices.gpu_names(self._device)

    def peak_gpu_memory_bytes(self) -> int | None:
        """Return the most memory that this process held on its GPU."""
        return torch_devices.peak_gpu_memory_bytes(self._device)

    def _build(self, config: Any, job: Job, epochs: int) -> list[Any]:
        """Build the model; returns the hooks that its training needs."""
        from mmdet.registry import MODELS

        self._model = MODELS.build(config.model)
        if not self.recipe.searches_dilations:
            return []
        self._search = receptive.widen(self._model, job.settings["search_epochs"], epochs)
        return [self._search]

    def _windows(self, job: Job) -> dict[str, Any]:
        """Return the arguments of ``CellWindows``."""
        assert job.train is not None
        crop = job.settings["crop"]
        return {
            "arrays": dataclasses.asdict(job.train),
            "windows": self._used,
            "crop": None if crop == "none" else int(crop),
        }

    def _build_runner(self, job: Job, config: Any, training: Training, hooks: list[Any]) -> Any:
        from mmengine.config import Config
        from mmengine.runner import Runner

        processes = job.devices.processes
        workers = torch_devices.data_workers(job, self._device)
        loader = {
            "dataset": {"type": "CellWindows", **self._windows(job)},
            "sampler": {
                "type": "CellSampler",
                "batch_size": training.batch_size,
                "seed": job.seed,
                "flips": job.settings["flips"],
            },
            "batch_size": training.batch_size // processes,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": self._device.type == "cuda",
            "collate_fn": self._modules.collate,
        }
        wrapper = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            # a window without a positive proposal leaves a mask head without a gradient
            "find_unused_parameters": True,
            "device_ids": [self._device.index] if self._device.type == "cuda" else None,
        }
        # runtime_info reads every loss for a log that nobody asked for
        none = dict.fromkeys(("logger", "checkpoint", "timer", "runtime_info"))
        return Runner(
            model=self._model,
            work_dir=str(Path(job.output) / "work"),
            train_dataloader=loader,
            train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": training.epochs},
            optim_wrapper=config.optim_wrapper,
            param_scheduler=config.param_scheduler,
            default_hooks=none,
            custom_hooks=hooks,
            launcher="pytorch" if processes > 1 else "none",
            env_cfg={"mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0}},
            randomness={"seed": job.seed % 2**32},
            log_level="WARNING",
            default_scope="mmdet",
            experiment_name=f"segbench-{time.time_ns()}",
            cfg=Config({"model_wrapper_cfg": wrapper} if processes > 1 else {}),
        )

    def _arrange(self, job: Job, size: tuple[int, int]) -> None:
        """On a GPU, lay the weights out as its convolutions want them, and record the front of a step as a graph."""
        from segbench.methods.mmdet import _graphs

        self._graphs: Any = _graphs
        self._graphed = False
        if self._device.type != "cuda":
            return
        self._lay_out()
        if job.devices.processes > 1 or self.recipe.searches_dilations or not job.settings["graphs"]:
            return
        crop = job.settings["crop"]
        height, width = (side if crop == "none" else min(side, int(crop)) for side in size)
        shape = (job.budget.batch_size, 3, height + -height % 32, width + -width % 32)
        self._graphed = _graphs.launch_at_once(self._model, shape, torch_devices.precision_of(job, self._device))

    def _lay_out(self) -> None:
        import torch

        if self._device.type == "cuda":
            self._model.to(self._device, memory_format=torch.channels_last)

    def _extra_state(self) -> dict[str, Any]:
        if self._average is not None:
            return {"average": self._average.state()}
        if not self.recipe.searches_dilations:
            return {}
        step = self._search.config["search"]["step"]
        return {"dilations": receptive.structure(self._model), "search_step": step}

    def _take_extra_state(self, extra: dict[str, Any]) -> None:
        if "average" in extra:
            self._average.take(extra["average"])
        elif extra:
            receptive.impose(self._model, extra["dilations"])
            self._search.config["search"]["step"] = extra["search_step"]


def _quiet_mask_heads(model: Any) -> None:
    """Draw the last layer of every mask head from a narrow normal distribution.

    Upstream draws it by the number of classes: with one it has a standard
    deviation of 1.4, and a mask loss of 10 to 50.
    """
    import torch

    for name, module in model.named_modules():
        if name.endswith("conv_logits") and type(module) is torch.nn.Conv2d:
            torch.nn.init.normal_(module.weight, std=0.001)
            torch.nn.init.zeros_(module.bias)
