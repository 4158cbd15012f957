"""What a user can say about how a grid is run: validated, kept in the results folder, and read from there again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from segbench.errors import SegbenchError
from segbench.wrong_values import first_wrong


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Retries(_Options):
    """How often a run is tried again in one launch."""

    failed: int = Field(default=0, ge=0)
    """After an error of the method's own."""
    lost: int = Field(default=5, ge=0)
    """After the death of a worker or node."""
    first_wait_s: float = Field(default=1.0, ge=0)
    """Before the first of them; each further one waits twice as long."""
    longest_wait_s: float = Field(default=120.0, ge=0)


class LaunchOptions(_Options):
    """How a grid is run; none of it decides a result. A retry takes all of it over from its launch."""

    executor: Literal["ray", "inline"] = "ray"
    """``inline`` runs one run after the other in this process, without Ray, so that a debugger can follow."""
    address: str | None = None
    """Of a running Ray cluster (``auto`` for the one of this machine); None starts a local one."""
    cpu: bool = False
    """Run without GPUs even where there are some."""
    num_cpus: PositiveInt | None = None
    """Cores of this machine that runs get together; None for all. A cluster has its own."""
    timeout_s: PositiveFloat | None = None
    """Of each method's subprocess."""
    checkpoint_every_s: PositiveFloat = 600.0
    """Seconds of training between two checkpoints, for methods that keep them."""
    fit: bool = False
    """Raise a run's share of a GPU, or its memory on a processor, to what its method was measured to hold; without it
    that is told alone."""
    accelerator: str | None = Field(default=None, min_length=1)
    """Kind of GPU that every run with a GPU must have, as Ray names it (``A100``)."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Node labels that every run's node must have."""
    cluster_file: Path | None = None
    """What the cluster's autoscaler was started with, so that runs may wait for nodes that do not run yet; None for
    none, or for what ``ray up`` has left on this machine. Made absolute."""
    retries: Retries = Field(default_factory=Retries)
    """What is tried again."""

    @field_validator("labels")
    @classmethod
    def _labels_have_keys(cls, labels: Mapping[str, str]) -> Mapping[str, str]:
        for key in labels:
            if not key or "=" in key or any(letter.isspace() for letter in key):
                raise ValueError(f"needs keys that are words without '='; {key!r} is none")
        return labels

    @field_validator("cluster_file")
    @classmethod
    def _found_from_any_folder(cls, path: Path | None) -> Path | None:
        return path if path is None else path.absolute()

    @classmethod
    def of(cls, **given: Any) -> LaunchOptions:
        """Return options of values that are not checked yet; raises SegbenchError that names the first wrong one."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise SegbenchError(f"launch option {first_wrong(error)}") from None

    def changed(self, **given: Any) -> LaunchOptions:
        """Return these options with some of them given anew; raises SegbenchError as ``of`` does."""
        return LaunchOptions.of(**{**self.model_dump(), **given})

    def saved(self) -> dict[str, Any]:
        """Return every option as a JSON-able value, for ``from_saved``."""
        return self.model_dump(mode="json")

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> tuple[LaunchOptions, tuple[str, ...]]:
        """Return the options that ``saved`` gave, maybe those of another release.

        What an older release did not save gets its default.

        Returns
        -------
        LaunchOptions, tuple of str
            The options, and the names of those that this release does not know.

        Raises
        ------
        SegbenchError
            A value is not one of this release.
        """
        known, unknown = _split(saved, cls)
        if isinstance(known.get("retries"), Mapping):
            known["retries"], more = _split(known["retries"], Retries)
            unknown += [f"retries.{name}" for name in more]
        return cls.of(**known), tuple(unknown)


def _split(saved: Mapping[str, Any], model: type[BaseModel]) -> tuple[dict[str, Any], list[str]]:
    known = {name: value for name, value in saved.items() if name in model.model_fields}
    return known, sorted(saved.keys() - known.keys())
