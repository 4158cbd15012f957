"""Puts data into the page: compact, and so that no string in it can be anything but text."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from segbench.analysis.report.model import Frame

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def safe_json(value: Any) -> str:
    """Return JSON that can stand in a script element: nothing in it ends the element or begins another.

    Examples
    --------
    >>> safe_json({"method": "</script><script>alert(1)"})
    '{"method":"\\\\u003c/script\\\\u003e\\\\u003cscript\\\\u003ealert(1)"}'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    # A lone surrogate cannot be written as UTF-8
    return text.encode("utf-8", "replace").decode()


def packed_json(value: Any) -> str:
    """Return JSON as base64 of gzip, which the page's script unpacks."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # mtime 0: the same data give the same bytes
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)).decode()


def frame_data(frame: Frame) -> dict[str, Any]:
    """Return a frame as plain data, by columns.

    Text columns are dictionary-encoded: ``levels`` (distinct texts) and ``codes`` (index of each row's, -1 for null).
    Floats keep six significant digits; not-a-number and infinities become null.
    """
    return {
        "rows": frame.data.height,
        "source": frame.source,
        "filters": {name: list(columns) for name, columns in frame.filters.items()},
        "columns": [_column(frame.data.get_column(name)) for name in frame.data.columns],
    }


def _column(column: pl.Series) -> dict[str, Any]:
    import polars as pl

    if column.dtype == pl.Boolean:
        column = column.cast(pl.Int8)
    if column.dtype.is_float():
        values = [
            None if v is None or not math.isfinite(v) else v
            for v in column.cast(pl.Float64).round_sig_figs(6).to_list()
        ]
        return {"name": column.name, "values": values}
    if column.dtype.is_numeric():
        return {"name": column.name, "values": column.to_list()}
    if column.dtype.is_temporal():
        texts = [None if v is None else f"{v:%Y-%m-%d %H:%M:%S}" for v in column.to_list()]
    elif isinstance(column.dtype, pl.List):
        texts = [None if v is None else ", ".join(map(str, v)) for v in column.to_list()]
    else:
        texts = [None if v is None else str(v) for v in column.to_list()]
    levels = list(dict.fromkeys(text for text in texts if text is not None))
    place = {text: n for n, text in enumerate(levels)}
    return {"name": column.name, "levels": levels, "codes": [-1 if text is None else place[text] for text in texts]}
