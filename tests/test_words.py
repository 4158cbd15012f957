"""The glossary is the same in the docs and on the command line."""

from __future__ import annotations

import re
from pathlib import Path

from segbench.words import WORDS

PAGE = Path(__file__).parent.parent / "docs" / "words.md"


def test_the_page_says_what_the_command_line_says() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    told = {}
    for word, meaning in rows:
        without = re.sub(r" \(\[[^\]]*\]\([^)]*\)\)", "", meaning)
        told[word] = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", without).replace("`", "")
    assert told == dict(WORDS)
