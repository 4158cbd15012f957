"""Text that others wrote, shown on a terminal: nothing in it is obeyed, but for colours."""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

_COLOUR = r"(?:[0-47]|2[2-47]|39|49|(?:3|4|9|10)[0-7]|[34]8;5;\d{1,3}|[34]8;2;\d{1,3};\d{1,3};\d{1,3})?"
_COLOURS = re.compile(rf"(\x1b\[{_COLOUR}(?:;{_COLOUR})*m)")
_ODD = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[{_ODD}]")
_CONTROL_OR_BREAK = re.compile(f"[{_ODD}\t\n\r]")


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    return (
        chr(0x2400 + code) if code < 0x20 else "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
    )


def plain(text: str) -> str:
    """Return a text as one line in which every control character is a sign that stands for it.

    Examples
    --------
    >>> plain("lung\\x1b[2J\\n")
    'lung␛[2J␊'
    """
    return _CONTROL_OR_BREAK.sub(_shown, text)


def harmless(text: str) -> str:
    """Return a text with its lines and colours, in which every other control character is a sign that stands for it.

    Examples
    --------
    >>> harmless("\\x1b[31mred\\x1b[0m\\n\\x1b]0;title\\x07")
    '\\x1b[31mred\\x1b[0m\\n␛]0;title␇'
    """
    parts = _COLOURS.split(text)  # every second one is a colour
    return "".join(
        part if n % 2 else _CONTROL.sub(_shown, re.sub(r"\r(?!\n)", "\n", part)) for n, part in enumerate(parts)
    )


class Guarded:
    """A terminal's stream to which only what is harmless is written; all else of it is the stream's own.

    Parameters
    ----------
    stream
        The terminal, which is kept as ``terminal`` for who draws there and makes plain what others wrote.
    """

    def __init__(self, stream: TextIO) -> None:
        self.terminal = stream

    def write(self, text: str) -> int:
        """Write a text, made harmless."""
        self.terminal.write(harmless(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


def guard() -> None:
    """Let this process write to terminals only what is harmless; files and pipes get every byte as it is."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty() and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream))


def drawn(stream: TextIO) -> TextIO:
    """Return the terminal behind a stream, for who moves its cursor."""
    return stream.terminal if isinstance(stream, Guarded) else stream
