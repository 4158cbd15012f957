"""Lets deepcell 0.12.10 and deepcell-retinamask 0.1.1, written for TensorFlow 2.8 and numpy 1, run on today's.

It changes what ``keras`` means in the whole process, so it belongs into a method's own subprocess. With it TensorFlow
2.21 gives what 2.8.4 gave on the same weights: to 2e-7 (PanopticNet), 5e-6 (FeatureNet) and 1e-7 (RetinaMask).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


def legacy_keras() -> None:
    """Let ``tensorflow.keras`` and ``keras`` be tf_keras, the Keras 2 that deepcell was written for.

    ``from keras.utils import conv_utils`` (deepcell/layers/pooling.py:34, upsample.py:32, location.py:32,
    normalization.py:37, tensor_product.py:34, image_generators/sample.py:43, utils/data_utils.py:32)
    finds no such module in Keras 3, and tf_keras keeps it under ``src``. TensorFlow reads the
    variable when it is imported: call this first.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    keras = importlib.import_module("tf_keras")
    conv_utils = importlib.import_module("tf_keras.src.utils.conv_utils")
    keras.utils.conv_utils = conv_utils
    sys.modules |= {"keras": keras, "keras.utils": keras.utils, "keras.utils.conv_utils": conv_utils}


def legacy_optimizers() -> None:
    """Let SGD and Adam be the optimizers of Keras before 2.11, which know ``decay``.

    ``SGD(learning_rate=0.01, decay=1e-6, ...)`` is a default argument in deepcell/training.py:59, 191 and 385, so it
    runs at import; the published trainings use ``decay`` and the old optimizers' clipping too.
    """
    tensorflow = importlib.import_module("tensorflow")
    # ``from tensorflow.keras.optimizers import SGD`` and ``tf.keras.optimizers.SGD`` are looked up in two modules
    modules: tuple[Any, ...] = (importlib.import_module("tensorflow.keras.optimizers"), tensorflow.keras.optimizers)
    for optimizers in modules:
        optimizers.SGD, optimizers.Adam = optimizers.legacy.SGD, optimizers.legacy.Adam


def no_tensorflow_addons() -> None:
    """Stand in for tensorflow_addons, which ended with TensorFlow 2.15 (deepcell/data/tracking.py:38).

    ``deepcell.data`` asks for it, which ``import deepcell`` leaves out but other parts of deepcell may reach for.
    """
    sys.modules.setdefault("tensorflow_addons", _StandIn("tensorflow_addons"))


def no_spektral() -> None:
    """Stand in for spektral, which needs Keras 2 under its old name (deepcell/model_zoo/tracking.py:46)."""
    for name in ("spektral", "spektral.layers"):
        sys.modules.setdefault(name, _StandIn(name))


def old_numpy_names() -> None:
    """Give numpy the names that 1.24 removed: ``float``, ``int`` (deepcell_retinamask/utils/anchor_utils.py:92-113)."""
    np.float, np.int = float, int  # type: ignore[attr-defined]


def misspelt_expand_dims() -> None:
    """Give numpy the misspelt ``epxnad_dims`` (deepcell_retinamask/utils/postprocessing_utils.py:126).

    It is reached when masks overlap.
    """
    np.epxnad_dims = np.expand_dims  # type: ignore[attr-defined]


ITEMS: tuple[Callable[[], None], ...] = (
    legacy_keras, legacy_optimizers, no_tensorflow_addons, no_spektral, old_numpy_names, misspelt_expand_dims,
)  # fmt: skip
"""All that must be done before deepcell is imported, in this order."""


def install() -> None:
    """Do all of it; TensorFlow must not have been imported yet."""
    for item in ITEMS:
        item()


class _StandIn(ModuleType):
    """A module whose names can be imported but not used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # the import system asks for these
        return _Missing(f"{self.__name__}.{name}")


class _Missing:
    """What a stand-in holds under any name: it raises ImportError at the first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: object, **kwargs: object) -> None:  # noqa: ARG002
        raise ImportError(f"{self._name} is for tracking cells, which segbench does not do")

    def __getattr__(self, name: str) -> Any:
        return _Missing(f"{self._name}.{name}")
