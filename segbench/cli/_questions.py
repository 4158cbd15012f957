"""The questions of ``segbench init``: asked on a terminal for what no option gives, else answered by the files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    from segbench.engine.data.beginning import Annotations, Seen
    from segbench.engine.data.importing import ImportOptions

_T = TypeVar("_T")
_TARGETS = ("nuclear", "wholecell", "cell")


@dataclass(frozen=True)
class Told:
    """What options have told of annotated images."""

    images: Path | None
    annotations: Path | None
    kind: str | None
    name: str | None
    target: str | None
    channels: str | None
    pixel_size: float | None
    to: Path | None


class Asker:
    """Asks for values on a terminal; elsewhere, or with ``--yes``, it takes what is proposed.

    Parameters
    ----------
    silent
        Never ask.
    """

    def __init__(self, silent: bool = False) -> None:
        self.asks = not silent and sys.stdin.isatty() and sys.stderr.isatty()

    def value(
        self, given: str | None, question: str, proposed: str | None, read: Callable[[str], _T], *, option: str
    ) -> _T:
        """Return a value: the given one, else an answer, else the proposed one.

        Parameters
        ----------
        given
            By the option.
        question
            What is asked.
        proposed
            What is taken where nobody answers; None where somebody must tell.
        read
            Makes a value of a text; raises SegbenchError where it is none. An answer is asked for again then.
        option
            What gives the value without a question.

        Raises
        ------
        SegbenchError
            A given value is wrong, or there is none and nobody to ask.
        """
        if given is not None:
            return read(given)
        if not self.asks:
            if proposed is None:
                raise SegbenchError(f"{question} Give {option}: there is no terminal to ask on")
            return read(proposed)
        while True:
            answer = str(typer.prompt(question, default=proposed or None, err=True))
            try:
                return read(answer.strip())
            except SegbenchError as error:
                typer.echo(f"  {error}", err=True)


def annotated(asker: Asker, told: Told, options: ImportOptions) -> Annotations:
    """Return the annotated images that options tell of, and answers where they do not.

    Raises
    ------
    SegbenchError
        Something is not there, or is not told and nobody can be asked.
    """
    from segbench.engine.data.beginning import ANNOTATED, AS_THEY_ARE, Annotations, check_name, look_at, name_of

    images = asker.value(_text(told.images), "Where are your images?", None, _there, option="their folder")
    annotations = told.annotations
    seen = look_at(images, annotations)
    if seen.kind is None and annotations is None and told.kind is None and asker.asks:
        annotations = asker.value(None, "Where are their annotations?", str(images), _there, option="--annotations")
        seen = look_at(images, annotations)
    if asker.asks and told.kind is None:
        for kind, what in ANNOTATED.items():
            typer.echo(f"  {kind:10} {what}", err=True)
    kind = asker.value(
        told.kind, "How are they annotated?", seen.kind, lambda text: _one_of("kind", text, ANNOTATED), option="--kind"
    )
    name = asker.value(told.name, "What is the dataset called?", name_of(images), str, option="--name")
    studied = kind in ("tissuenet", "livecell")
    target = None if studied else _target(asker, told.target)
    asked = Annotations(
        images=images,
        kind=kind,
        name=name,
        annotations=annotations,
        folder=None if kind in AS_THEY_ARE else (told.to or Path(f"{name}-dataset")),
        target=target,
        channels=() if studied else _channels(asker, told.channels, seen),
        pixel_size_um=_pixel_size(asker, told.pixel_size, seen, of_files=not studied),
        options=options,
    )
    check_name(asked)
    return asked


def _target(asker: Asker, given: str | None) -> str:
    question = f"What do the masks label ({', '.join(_TARGETS)})?"
    return asker.value(given, question, "cell", lambda text: _one_of("target", text, _TARGETS), option="--target")


def _channels(asker: Asker, given: str | None, seen: Seen) -> tuple[str, ...]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(","))
        if not all(names) or len(set(names)) != len(names):
            raise SegbenchError(f"channels need different names, separated by commas, found {text!r}")
        if seen.channels and len(names) < len(seen.channels):
            raise SegbenchError(f"the first image has {len(seen.channels)} channels, and {len(names)} are named")
        return names

    if given is None and not seen.channels:
        return ()
    n = len(seen.channels)
    question = f"What does each of the {n} channels show, in their order?" if n > 1 else "What does the channel show?"
    return asker.value(given, question, ",".join(seen.channels) or None, read, option="--channels")


def _pixel_size(asker: Asker, given: float | None, seen: Seen, *, of_files: bool) -> float | None:
    def read(text: str) -> float | None:
        if text in ("", "unknown"):
            return None
        try:
            size = float(text)
        except ValueError:
            size = 0.0
        if not 0 < size < 1000:
            raise SegbenchError(f"a pixel's side is micrometres above 0, found {text!r}: unknown if nobody knows it")
        return size

    known = "unknown" if seen.pixel_size_um is None else f"{seen.pixel_size_um:g}"
    size = asker.value(_text(given), "How wide is a pixel, in micrometres?", known, read, option="--pixel-size")
    # what the files tell is each file's own, and is read with it
    return None if of_files and given is None and size == seen.pixel_size_um else size


def _there(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.exists():
        raise SegbenchError(f"there is nothing at {path}")
    return path


def _one_of(what: str, text: str, known: Iterable[str]) -> str:
    if text not in set(known):
        raise unknown_name(what, text, known)
    return text


def _text(value: object) -> str | None:
    return None if value is None else str(value)
