"""Answers what a shell may put for a word, from a list of all commands that is made once; imports next to nothing.

A shell asks at every key: Typer and the commands take longer to import than it may wait. What depends on the code alone
(commands, options, presets, methods, ...) is kept in the cache as ``completion.json`` until the code or the installed
packages change; what depends on the user's data is read as small files.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE = "completion.json"


def complete(instruction: str) -> bool:
    """Answer a shell (``complete_bash``, ``complete_zsh`` or ``complete_fish``) on standard output.

    Returns
    -------
    bool
        False where the instruction is another one, which Typer answers.
    """
    action, _, shell = instruction.partition("_")
    if action != "complete" or shell not in ("bash", "zsh", "fish"):
        return False
    words, piece = _typed(shell)
    found = candidates(words, piece, the_index())
    if shell == "zsh":
        told = "\n".join(_for_zsh(value, about) for value, about in found)
        print(f"_arguments '*: :(({told}))'" if found else "_files")
    elif shell == "fish" and os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        sys.exit(0 if found else 1)
    else:
        about = shell == "fish"
        print("\n".join(f"{value}\t{told}" if about and told else value for value, told in found))
    return True


def candidates(words: list[str], piece: str, index: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what may stand for the last word, with what each means.

    Parameters
    ----------
    words
        Those before it, without the program's name.
    piece
        What of it is typed.
    index
        As ``segbench.cli._completion_index`` makes it.
    """
    node, rest = index["commands"], list(words)
    while rest and "commands" in node and rest[0] in node["commands"]:
        node = node["commands"][rest.pop(0)]
    if "commands" in node:
        if rest:  # no command of this name
            return []
        if piece.startswith("-"):
            return [(flag, about) for flag, about in (("--help", "Show the help."),) if flag.startswith(piece)]
        return [(name, one["help"]) for name, one in node["commands"].items() if name.startswith(piece)]
    options = {flag: option for option in node["options"] for flag in option["flags"]}
    kind, taken = _expected(rest, options)
    if kind is None and piece.startswith("-"):
        return [
            (flag, option["help"])
            for flag, option in options.items()
            if flag.startswith(piece) and flag.startswith("--") and (option["many"] or flag not in taken)
        ]
    values = _values(kind if kind is not None else _argument(rest, options, node["arguments"]), index, rest)
    return [(value, about) for value, about in values if value.startswith(piece)]


def _expected(rest: list[str], options: dict[str, Any]) -> tuple[str | None, set[str]]:
    """Return the kind of value that the option before the word wants, None for none; and the options that are given."""
    given = {flag for flag in rest if flag in options}
    taken = {other for flag in given for other in options[flag]["flags"]}
    last = options.get(rest[-1]) if rest else None
    return (last["values"] if last is not None and last["takes"] else None), taken


def _argument(rest: list[str], options: dict[str, Any], arguments: list[str]) -> str:
    """Return the kind of value of the argument whose turn it is."""
    number, skip = 0, False
    for word in rest:
        if skip:
            skip = False
        elif word in options:
            skip = options[word]["takes"]
        elif not word.startswith("-"):
            number += 1
    if not arguments:
        return ""
    if number < len(arguments):
        return arguments[number]
    return arguments[-1] if arguments[-1].endswith("*") else ""


def _values(kind: str, index: dict[str, Any], rest: list[str]) -> list[tuple[str, str]]:
    kind = kind.removesuffix("*")
    if kind in index["values"]:
        return [(value, about) for value, about in index["values"][kind]]
    if kind.startswith("="):
        return [(value, "") for value in kind[1:].split("|")]
    from segbench.cli import _completion_values

    return _completion_values.of(kind, _results_folder(rest))


def _results_folder(rest: list[str]) -> str:
    for flag in ("--out", "--results"):
        if flag in rest[:-1]:
            return os.path.expanduser(rest[rest.index(flag) + 1])
    return os.environ.get("SEGBENCH_OUT") or "segbench-results"


def _typed(shell: str) -> tuple[list[str], str]:
    if shell == "bash":
        words = _split(os.environ.get("COMP_WORDS", ""))
        number = int(os.environ.get("COMP_CWORD", "0"))
        return words[1:number], words[number] if number < len(words) else ""
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(line)[1:]
    if words and not line.endswith(" "):
        return words[:-1], words[-1]
    return words, ""


def _split(line: str) -> list[str]:
    """Return the words of a line, the last of which may have a quote that is still open."""
    reader = shlex.shlex(line, posix=True)
    reader.whitespace_split, reader.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(reader)
    except ValueError:
        words.append(reader.token)
    return words


def _for_zsh(value: str, about: str) -> str:
    def escaped(text: str) -> str:
        for old, new in (('"', '""'), ("'", "''"), ("$", "\\$"), ("`", "\\`"), (":", "\\\\:")):
            text = text.replace(old, new)
        return text

    return f'"{escaped(value)}":"{escaped(about)}"' if about else f'"{escaped(value)}"'


def the_index() -> dict[str, Any]:
    """Return the list of commands: the kept one where the code has not changed since."""
    return kept(_FILE, code_stamp(), _made)


def _made() -> dict[str, Any]:
    from segbench.cli._completion_index import made_index

    return made_index()


def kept(name: str, stamp: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is kept in the cache under a name and has this stamp; else it is made, and kept where that can be."""
    file = os.path.join(cache_folder(), name)
    try:
        with open(file, encoding="utf-8") as opened:
            found = json.load(opened)
        if found["stamp"] == stamp:
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    made = {"stamp": stamp, **make()}
    part = f"{file}.{os.getpid()}.part"
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(part, "w", encoding="utf-8") as opened:
            json.dump(made, opened)
        os.replace(part, file)
    except OSError:  # with a cache that cannot be written it is slow, no more
        pass
    return made


def code_stamp() -> str:
    """Return a text that changes with the code of the commands, and with what is installed."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    watched = [os.path.join(home, *one) for one in _WATCHED]
    watched += [entry.path for entry in os.scandir(os.path.join(home, "cli")) if entry.name.endswith(".py")]
    watched += [path for path in sys.path if path.endswith("-packages")]
    told = []
    for path in sorted(watched):
        try:
            told.append(f"{path}:{os.stat(path).st_mtime_ns}")
        except OSError:
            told.append(path)
    return "\n".join((sys.executable, *told))


_WATCHED = (
    ("analysis", "registry.py"),
    ("analysis", "report", "sections"),
    ("engine", "grid", "presets.py"),
    ("engine", "study", "tissues.py"),
    ("methods",),
    ("words.py",),
)


def cache_folder() -> str:
    # as segbench.paths has it, whose pathlib takes longer to import than all of this
    return os.path.abspath(
        os.path.expanduser(os.environ.get("SEGBENCH_CACHE") or os.path.join("~", ".cache", "segbench"))
    )
