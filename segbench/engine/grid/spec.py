"""A grid as a user writes it, in a YAML file or as a preset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segbench.engine.data.degrading import check_kinds
from segbench.engine.grid.changes import BudgetChange, ResourceChange
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name
from segbench.wrong_values import first_wrong

ALL: Literal["all"] = "all"
"""Stands for every training image."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Block(_Part):
    """A product: every method on every task, trained on every tissue with every seed."""

    methods: tuple[str, ...] = Field(min_length=1)
    tasks: tuple[str, ...] = Field(min_length=1)
    tissues: tuple[str, ...] = (ALL_TISSUES,)
    """Training tissues; ``all`` is every tissue together, ``each`` every tissue of the task's dataset on its own."""
    seeds: tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...] = (0,)
    train_images: tuple[Annotated[int, Field(ge=1, le=2**31 - 1)] | Literal["all"], ...] = Field(
        default=(ALL,), min_length=1
    )
    """How many images of the training tissue: nested random parts, drawn by the seed; ``all`` for every one."""
    budgets: dict[str, BudgetChange] = Field(default_factory=dict)
    """By method, for this block; applied after the grid's own."""

    @field_validator("tissues", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return tuple(str(v) for v in value) if isinstance(value, list | tuple) else value


class GridSpec(_Part):
    """A grid as a user writes it: blocks, and what differs from the methods' cards."""

    blocks: tuple[Block, ...] = Field(min_length=1)
    budget: BudgetChange = BudgetChange()
    """For every method."""
    budgets: dict[str, BudgetChange] = Field(default_factory=dict)
    """By method; applied before ``budget``."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By method: settings that differ from the card's."""
    start: Annotated[str, Field(min_length=1)] | None = None
    """Where every training starts: ``random``, ``published-backbone``, ``generalist`` (the method's released model of
    cells; with 0 epochs it is applied as it is), or the path of a file of weights; a method's settings come first."""
    recipe: Literal["cells", "study", "cards"] = "cells"
    """What becomes of the cards' settings: ``cells``, what finds cells best, every choice made on validation data;
    ``study``, the paper and its scripts to the letter; ``cards``, nothing. What is said of a method by name, and
    ``start``, come after it."""
    resources: dict[str, ResourceChange] = Field(default_factory=dict)
    """By method."""
    train_images_keep: Literal["steps", "epochs"] = "steps"
    """What of its budget a method whose epochs are passes keeps on a part of the training images: about as many steps
    as on all of them, in more epochs; or its epochs, in fewer steps."""
    evaluation: Literal["windows", "whole"] = "windows"
    """What is scored: windows, as the study does; or beside them whole images, put together from the windows."""

    robustness: tuple[str, ...] = ()
    """Kinds of degraded test images, or ``all``, to which every trained model is applied as well."""

    @field_validator("robustness", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("robustness")
    @classmethod
    def _known_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return check_kinds(value)
        except SegbenchError as error:
            raise ValueError(str(error)) from None

    def with_seeds(self, seeds: tuple[int, ...]) -> GridSpec:
        """Return this grid with every run made with each of these seeds; itself where none are given.

        Examples
        --------
        >>> spec = grid_of({"methods": ["watershed"], "tasks": ["synthetic-nuclear-1ch"]}, "grid")
        >>> spec.with_seeds((0, 1, 2)).blocks[0].seeds
        (0, 1, 2)
        """
        if not seeds:
            return self
        blocks = [{**block.model_dump(), "seeds": seeds} for block in self.blocks]
        return GridSpec.model_validate({**self.model_dump(), "blocks": blocks})


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that gives one key twice: YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice!r} stands there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_grid(path: Path) -> GridSpec:
    """Read a grid file (YAML); either ``blocks: [...]`` or one block's keys at the top.

    Raises
    ------
    SegbenchError
        The file is missing, is not YAML, or a field does not fit: the error names the field and what was found.
    """
    try:
        raw = yaml.load(Path(path).read_text(), _UniqueKeys)  # a SafeLoader
    except OSError as error:
        raise SegbenchError(f"cannot read the grid file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SegbenchError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return grid_of(raw, str(path))


def grid_of(raw: Any, where: str) -> GridSpec:
    """Return the grid of what a grid file holds; ``where`` begins the errors.

    Raises
    ------
    SegbenchError
        A field does not fit: the error names the field and what was found.

    Examples
    --------
    >>> spec = grid_of({"methods": ["watershed"], "tasks": ["synthetic-nuclear-1ch"], "seeds": [0, 1]}, "grid")
    >>> spec.blocks[0].seeds
    (0, 1)
    """
    if not isinstance(raw, Mapping):
        raise SegbenchError(f"{where}: a grid is a mapping with methods, tasks, ..., found {type(raw).__name__}")
    one_block = "blocks" not in raw
    if one_block:
        keys = [key for key in Block.model_fields if key in raw]
        raw = {**{k: v for k, v in raw.items() if k not in keys}, "blocks": [{key: raw[key] for key in keys}]}
    try:
        return GridSpec.model_validate(raw)
    except ValidationError as error:
        raise SegbenchError(f"{where}: {_problem(error, one_block=one_block)}") from None


def _problem(error: ValidationError, *, one_block: bool) -> str:
    """Return what is wrong in a line, by the keys as they stand in the file."""
    wrong = first_wrong(error)
    keys = list(wrong.keys)
    if one_block and keys[:2] == ["blocks", "0"]:
        del keys[:2]
    if wrong.kind != "extra_forbidden":
        return f"field {'.'.join(keys)} {wrong.problem}"
    *outer, name = keys
    if not outer and not one_block and name in Block.model_fields:
        return f"field {name} belongs into each of the blocks: with 'blocks' there is none beside them"
    of = f" of {'.'.join(outer)}" if outer else ""
    return str(unknown_name(f"field{of}", name, _fields(outer, one_block=one_block)))


def _fields(outer: list[str], *, one_block: bool) -> list[str]:
    """Return the names that are allowed where a path of keys leads."""
    for key, model in (("budget", BudgetChange), ("budgets", BudgetChange), ("resources", ResourceChange)):
        if key in outer:
            return list(model.model_fields)
    if outer:
        return list(Block.model_fields)
    return [*GridSpec.model_fields, *(Block.model_fields if one_block else ())]
