"""``segbench help``: what the words mean that outputs use."""

from __future__ import annotations

from typing import Annotated

import typer


def help_(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[words] | WORD...", help="'words' for all of them, or some.")
    ] = None,
) -> None:
    """Explain the words that segbench uses.

    What a command does is told by its --help. Examples:

      segbench help words

      segbench help window tissue T
    """
    import shutil
    import sys
    import textwrap

    from segbench.errors import unknown_name
    from segbench.words import WORDS, plain_word

    wanted = list(WORDS) if not words or words == ["words"] else [plain_word(word) for word in words]
    for word in wanted:
        if word not in WORDS:
            raise unknown_name("word", word, WORDS)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    longest = max(map(len, wanted))
    for word in wanted:
        told = textwrap.wrap(
            WORDS[word], width, initial_indent=f"{word:{longest}}  ", subsequent_indent=" " * (longest + 2)
        )
        typer.echo("\n".join(told))
