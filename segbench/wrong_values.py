"""What is wrong with a value that a user gave, in the user's words instead of the validator's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segbench.errors import near_names

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONGEST = 80
_WORDS = {
    "missing": "is missing",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}


@dataclass(frozen=True)
class WrongValue:
    """The first value that did not fit."""

    keys: tuple[str, ...]
    """Where it stands, from the outermost key inwards."""
    kind: str
    """Pydantic's name of what is wrong (``missing``, ``extra_forbidden``)."""
    problem: str
    """What it must be, and what was found instead."""

    def __str__(self) -> str:
        return f"{'.'.join(self.keys)} {self.problem}".strip()


def first_wrong(error: ValidationError) -> WrongValue:
    """Return the first of the values that did not fit.

    Examples
    --------
    >>> from pydantic import BaseModel, Field, ValidationError
    >>> class Budget(BaseModel):
    ...     epochs: int = Field(gt=0)
    >>> for given in ({"epochs": 0}, {"epochs": "many"}, {}):
    ...     try:
    ...         Budget.model_validate(given)
    ...     except ValidationError as error:
    ...         print(first_wrong(error))
    epochs must be greater than 0, found 0
    epochs must be a whole number, found 'many'
    epochs is missing
    """
    # a misspelt name first: what is missing may stand under it
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    kind, given, context = first["type"], first.get("input"), first.get("ctx", {})
    found = "" if kind == "missing" else f", found {repr(given)[:_LONGEST]}"
    keys = tuple(str(key) for key in first["loc"])
    return WrongValue(keys, kind, _problem(kind, first["msg"], context) + found + _instead(kind, given, context))


def _instead(kind: str, given: Any, context: Mapping[str, Any]) -> str:
    """Return what would be right, where that can be told of what was given; empty else."""
    if kind in ("tuple_type", "list_type") and isinstance(given, str | int | float):
        return f": write [{given}]"
    if kind in ("literal_error", "enum"):
        near = near_names(str(given), re.findall(r"'([^']*)'", str(context.get("expected", ""))))
        return f"; did you mean {' or '.join(near)}?" if near else ""
    return ""


def _problem(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ").removesuffix(".")
    if kind in _WORDS:
        return _WORDS[kind].format(**context)
    return message[:1].lower() + message[1:].replace("Input should", "it should")
