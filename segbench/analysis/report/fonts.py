"""Puts the letters that an SVG uses into it, so that it looks the same where its font is not installed."""

from __future__ import annotations

import base64
import importlib
import io
import re
from html import unescape

_FAMILY = "DejaVu Sans"
_FACES = {"normal": "400", "bold": "700"}


def with_fonts(svg: str) -> str:
    """Return an SVG with its font's letters embedded, one face a weight, as WOFF.

    Its texts stay texts: they can be searched, copied and edited.
    """
    letters = {letter for text in re.findall(r">([^<]+)</(?:text|tspan)>", svg) for letter in unescape(text)}
    if not letters:
        return svg
    weights = ["normal", *(["bold"] if re.search(r"font(?:-weight)?:\s*(?:700|bold)", svg) else [])]
    faces = "".join(
        f"@font-face{{font-family:'{_FAMILY}';font-weight:{_FACES[weight]};"
        f"src:url(data:font/woff;base64,{_subset(weight, ''.join(sorted(letters)))}) format('woff')}}"
        for weight in weights
    )
    return svg.replace("<defs>", f'<defs>\n  <style type="text/css">{faces}</style>', 1)


def _subset(weight: str, letters: str) -> str:
    """Return base64 of a WOFF with these letters of a weight."""
    from matplotlib.font_manager import FontProperties, findfont

    subset = importlib.import_module("fontTools.subset")
    path = findfont(FontProperties(family=_FAMILY, weight=weight), fallback_to_default=False)
    # No times of making or changing: the same letters give the same bytes
    options = subset.Options(
        flavor="woff", layout_features=[], hinting=False, notdef_outline=True, recalc_timestamp=False
    )
    font = subset.load_font(path, options)
    cutter = subset.Subsetter(options)
    cutter.populate(text=letters)
    cutter.subset(font)
    buffer = io.BytesIO()
    subset.save_font(font, buffer, options)
    return base64.b64encode(buffer.getvalue()).decode()
