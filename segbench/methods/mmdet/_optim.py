"""How MMEngine's Runner takes a step here: in any precision on any device, without asking the device for a number.

Imported inside functions only: it needs torch and MMEngine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

from segbench.errors import SegbenchError
from segbench.methods.scaling import FIRST_SCALE


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):  # type: ignore[misc]
    """Trains in float32, in float16 with scaled gradients, or in bfloat16, on any device.

    MMEngine's own is for GPUs alone in half precision, and waits for the device in each step: for the norm of the
    gradients, and to know whether they are finite.

    Parameters
    ----------
    precision
        ``float32``, ``float16`` or ``bfloat16``.
    **wrapper
        The arguments of MMEngine's ``OptimWrapper``.
    """

    def __init__(self, precision: str, **wrapper: Any) -> None:
        super().__init__(**wrapper)
        self._type = getattr(torch, precision)
        self._device = next(p.device.type for group in self.param_groups for p in group["params"])
        # bfloat16 has the range of float32, so that nothing needs a scale
        self.loss_scaler = torch.amp.GradScaler(self._device, FIRST_SCALE, enabled=precision == "float16")
        self.skipped: torch.Tensor | None = None
        """Whether the last step was left out, for its gradients were not finite; None where nothing is scaled."""
        for group in self.optimizer.param_groups:
            if group.get("fused") and group.get("momentum") and not group.get("dampening"):
                # a fused first step that is left out would leave the next one memory that nobody has written
                for parameter in group["params"]:
                    self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    @contextmanager
    def optim_context(self, model: Any) -> Iterator[None]:
        """Compute a step's losses in half precision, where PyTorch takes it to be safe."""
        half = self._type != torch.float32
        with super().optim_context(model), torch.autocast(self._device, self._type if half else None, enabled=half):
            yield

    def backward(self, loss: torch.Tensor, **options: Any) -> None:
        """Compute the gradients of the scaled loss."""
        self.loss_scaler.scale(loss).backward(**options)
        self._inner_count += 1

    def step(self, **options: Any) -> None:
        """Take the step, unless the gradients are not finite; the scale follows."""
        scaled = self.loss_scaler.is_enabled()
        # as tensors: get_scale would wait for the device
        before = self.loss_scaler._scale.clone() if scaled else None
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **options)
        self.loss_scaler.update()
        if before is not None:
            self.skipped = self.loss_scaler._scale < before

    def _clip_grad(self) -> None:
        """Clip the gradients; upstream's also reads their norm, for its log."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if parameters:
            self.clip_func(parameters, **self.clip_grad_kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state with the scaler's."""
        return {**super().state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned."""
        if len(state_dict["param_groups"]) != len(self.optimizer.param_groups):
            raise SegbenchError(
                "the checkpoint is of a segbench that grouped parameters in another way: remove the run's folder of "
                "checkpoints to train it from the beginning"
            )
        self.loss_scaler.load_state_dict(state_dict["loss_scaler"])
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "loss_scaler"})


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FewGroupsConstructor(DefaultOptimWrapperConstructor):  # type: ignore[misc]
    """Puts parameters that are trained alike into one group.

    Upstream makes a group of every parameter where a few have a rate or decay of their own: hundreds, each a call of
    the optimiser of its own, where one call takes a whole group.
    """

    def add_params(self, params: list[dict[str, Any]], module: Any, **where: Any) -> None:
        """Add the module's parameters to the groups of those before."""
        found: list[dict[str, Any]] = []
        super().add_params(found, module, **where)
        there = {id(parameter) for group in params for parameter in group["params"]}
        for group in found:
            options = {key: value for key, value in group.items() if key != "params"}
            # what two modules share is trained once
            mine = [parameter for parameter in group["params"] if id(parameter) not in there]
            there.update(map(id, mine))
            for known in params:
                if {key: value for key, value in known.items() if key != "params"} == options:
                    known["params"] += mine
                    break
            else:
                params.append({"params": list(mine), **options})
