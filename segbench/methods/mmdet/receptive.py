"""RF-Next: widens a network's convolutions to several dilations, and keeps which ones with the weights."""

from __future__ import annotations

from typing import Any

SEARCH = {
    "search_interval": 1, "exp_rate": 0.5, "init_alphas": 0.01, "mmin": 1, "mmax": 24, "num_branches": 2,
    "skip_layer": ["stem", "layer1"],
}  # fmt: skip
"""Upstream's search: two branches, half and one and a half times as wide as the present dilation, between 1 and 24."""


def widen(model: Any, search_epochs: int, epochs: int) -> Any:
    """Wrap the convolutions of a model for the search and return mmcv's hook, which then searches after each epoch.

    Upstream leaves it to its caller to initialise the hook: a Runner alone would search nothing.

    Parameters
    ----------
    model
        The detector; all its convolutions wider than 1 pixel but those of its stem and first stage.
    search_epochs
        After how many epochs to search. Half of ``epochs`` at most, so that the last structure is trained too.
    epochs
        Of the training; 0 to predict only.
    """
    from mmcv.cnn.rfsearch import RFSearchHook

    search = SEARCH | {"step": 0, "max_step": 1 + min(search_epochs, epochs // 2)}
    hook = RFSearchHook(mode="search", config={"search": search}, by_epoch=True, verbose=False)
    hook.init_model(model)
    return hook


def structure(model: Any) -> dict[str, list[list[int]]]:
    """Return the dilations (vertical, horizontal) of every wrapped convolution by name: its own, then its branches'."""
    return {
        name: [list(module.op_layer.dilation), *(list(rate) for rate in module.dilation_rates)]
        for name, module in _wrapped(model)
    }


def impose(model: Any, kept: dict[str, list[list[int]]]) -> None:
    """Give a wrapped model the dilations that :func:`structure` told of another; they are not among its weights."""
    for name, module in _wrapped(model):
        own, *branches = kept[name]
        module.op_layer.dilation = tuple(own)
        module.op_layer.padding = module.get_padding(tuple(own))
        module.dilation_rates = [tuple(rate) for rate in branches]


def _wrapped(model: Any) -> list[tuple[str, Any]]:
    from mmcv.cnn.rfsearch import Conv2dRFSearchOp

    return [(name, module) for name, module in model.named_modules() if isinstance(module, Conv2dRFSearchOp)]
