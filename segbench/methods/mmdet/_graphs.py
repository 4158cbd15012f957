"""The part of a training step whose shapes never change, as one CUDA graph: launched at once, not kernel by kernel.

A step of Mask R-CNN on eight windows launches thousands of kernels, most of them in the backbone, for which the
processor takes longer than the GPU. Imported inside functions only: it needs torch.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch

_LOG = logging.getLogger(__name__)
_CLOSE = 0.05
"""Share of the gradients' norm by which those of a graph may differ from those without one: both are rounded to half
precision in some fifty layers."""


class Front(torch.nn.Module):  # type: ignore[misc]
    """Backbone, neck and the convolutions of the first head: all that sees whole windows.

    Parameters
    ----------
    model
        A detector of MMDetection, whose parameters these are.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.head = next((getattr(model, name) for name in ("rpn_head", "mask_head") if hasattr(model, name)), None)
        self.parts = torch.nn.ModuleList(
            [part for part in (model.backbone, getattr(model, "neck", None)) if part is not None]
        )
        self._extract = type(model).extract_feat.__get__(model)
        self._forward = None if self.head is None else type(self.head).forward.__get__(self.head)
        self.shapes: list[int] = []
        """How many tensors are features, and how many each of the head's lists has; 0 for a tensor on its own."""

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the features of windows and what the head makes of them, one after the other."""
        features = tuple(self._extract(inputs))
        found = [] if self._forward is None else list(self._forward(features))
        self.shapes = [len(features), *(len(each) if isinstance(each, list | tuple) else 0 for each in found)]
        flat = [each for part in found for each in (part if isinstance(part, list | tuple) else [part])]
        return (*features, *flat)

    def taken_apart(self, flat: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], tuple[Any, ...]]:
        """Return the features, and what the head's own ``forward`` returns of them."""
        left = list(flat[self.shapes[0] :])
        found: list[Any] = []
        for size in self.shapes[1:]:
            found.append([left.pop(0) for _ in range(size)] if size else left.pop(0))
        return tuple(flat[: self.shapes[0]]), tuple(found)


def launch_at_once(model: Any, shape: tuple[int, int, int, int], precision: str) -> bool:
    """Let a model's front run as a graph in training, on windows of one shape; returns whether it does.

    It does not where the graph cannot be recorded, or does not give what the front gives without one.

    Parameters
    ----------
    model
        On a GPU.
    shape
        (B, 3, H, W) of what the model sees.
    precision
        Of the training.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.train()
    front = Front(model).train()
    kept = [buffer.clone() for buffer in front.buffers()]
    state = torch.cuda.get_rng_state(device)
    try:
        inputs = torch.randn(shape, device=device)
        with _half(device, precision):
            torch.manual_seed(0)
            expected = _seen(front, inputs)
            graphed = torch.cuda.make_graphed_callables(front, (inputs.clone(),), allow_unused_input=True)
            _restore(front, kept)
            torch.manual_seed(0)
            _agree(_seen(graphed, inputs), expected)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:  # torch's own, out of memory among them
        _LOG.warning("training goes on without a CUDA graph: %s", " ".join(str(error).split())[:300])
        torch.cuda.synchronize(device)
        return False
    finally:
        _restore(front, kept)
        torch.cuda.set_rng_state(state, device)
        model.train(was_training)
    _use(model, graphed, shape)
    return True


def launch_one_by_one(model: Any) -> None:
    """Take the graph of a model's front away, and give its memory back."""
    for part, name in ((model, "extract_feat"), (getattr(model, "rpn_head", None), "forward")):
        if part is not None:
            part.__dict__.pop(name, None)
    if "mask_head" in model._modules:
        model.mask_head.__dict__.pop("forward", None)
    gc.collect()  # the graph and the model know each other
    torch.cuda.empty_cache()


def _use(model: Any, front: Front, shape: tuple[int, int, int, int]) -> None:
    given: dict[str, Any] = {"features": None}
    plain = type(model).extract_feat.__get__(model)

    def extract_feat(batch_inputs: torch.Tensor) -> Any:
        given.clear()
        if not (model.training and torch.is_grad_enabled() and tuple(batch_inputs.shape) == shape):
            return plain(batch_inputs)
        given["features"], given["head"] = front.taken_apart(front(batch_inputs))
        return given["features"]

    model.extract_feat = extract_feat
    head = front.head
    if head is not None:
        forward = type(head).forward.__get__(head)
        head.forward = lambda x: given["head"] if x is given.get("features") else forward(x)


@contextlib.contextmanager
def _half(device: Any, precision: str) -> Iterator[None]:
    half = precision != "float32"
    dtype = getattr(torch, precision) if half else None
    # a graph may not use copies of weights that another call has left in a cache
    with torch.autocast(device.type, dtype, enabled=half, cache_enabled=False):
        yield


def _seen(front: Any, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return what the front gives for windows, and the gradients of its parameters by the mean square of that."""
    found = front(inputs)
    loss = sum(each.float().square().mean() for each in found)
    trained = [p for p in front.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, trained, allow_unused=True)
    return [each.detach().float().clone() for each in (*found, *grads) if each is not None]


def _agree(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Raise RuntimeError where two results of :func:`_seen` differ by more than rounding."""
    if len(found) != len(expected):
        raise RuntimeError("the graph gives other tensors")
    apart = torch.stack([(one - other).square().sum() for one, other in zip(found, expected, strict=True)])
    whole = torch.stack([each.square().sum() for each in expected])
    share = float((apart.sum() / whole.sum()).sqrt())
    worst = float((apart / (whole + 1e-6 * whole.sum())).max().sqrt())
    if not (share <= _CLOSE and worst <= 10 * _CLOSE):
        raise RuntimeError(f"the graph's results differ by {share:.3g} (a tensor's by {worst:.3g}) of theirs")


def _restore(front: Any, kept: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for buffer, value in zip(front.buffers(), kept, strict=True):
            buffer.copy_(value)
