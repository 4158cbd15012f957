"""Where the installers get packages from, as pip was told; what is secret of it is on no command line and in no log."""

from __future__ import annotations

import contextlib
import netrc
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_OF_PLACES = ("index-url", "extra-index-url", "find-links", "trusted-host")
SECRET_VARIABLES = frozenset(
    (
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"),
        *("UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS"),
    )
)
"""Variables that may hold the name and password of a package index: no method's process gets them."""


@dataclass(frozen=True)
class Index:
    """The places, without names and passwords, and those apart."""

    settings: Mapping[str, str]
    """pip's own, by option; several values with spaces between them."""
    logins: tuple[tuple[str, str, str], ...] = ()
    """Host, name and password."""

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Index:
        """Take names and passwords out of pip's settings.

        Examples
        --------
        >>> Index.of({"index-url": "https://me:secret@host/simple"})
        Index(settings={'index-url': 'https://host/simple'}, logins=(('host', 'me', 'secret'),))
        """
        logins: list[tuple[str, str, str]] = []

        def plain(url: str) -> str:
            try:
                parts = urlsplit(url)
                host, user = parts.hostname, parts.username
            except ValueError:
                return url
            if not host or user is None:
                return url
            # a token that stands alone is a name; no file of logins has an empty password
            logins.append((host, unquote(user), unquote(parts.password or "x-oauth-basic")))
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

        shown = {
            name: " ".join(plain(value) for value in text.split()) if name in _OF_PLACES else text
            for name, text in settings.items()
        }
        return cls(shown, tuple(dict.fromkeys(logins)))

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may stand in no log."""
        named = {name if word == "x-oauth-basic" else word for _, name, word in self.logins}
        return tuple({form for text in named for form in (text, quote(text, safe="")) if len(form) > 1})

    def hidden(self, text: str) -> str:
        """Return a line of an installer without what is secret, and without what stands before ``@`` in any URL."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "****")
        return re.sub(r"(://)[^/\s@]+@", r"\1****@", text)

    def variables(self, folder: Path) -> dict[str, str]:
        """Return what pip and uv take from their environment; logins go into a file of the folder, 0600.

        Both read it where a variable names it, beside the user's own ~/.netrc, which is copied into it.
        """
        if not self.logins:
            return {}
        given = (name for name in _OF_PLACES if name in self.settings)
        told = {f"PIP_{name.upper().replace('-', '_')}": self.settings[name] for name in given}
        file = folder / "netrc"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as logins:
            for host, name, word in self.logins:
                logins.write(f"machine {host}\nlogin {_quoted(name)}\npassword {_quoted(word)}\n")
            own = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
            with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
                netrc.netrc(own)
                logins.write(own.read_text())
        told["NETRC"] = str(file)
        return told


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[^\s\"\\#]+", word) else '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def pip_settings(safe: Mapping[str, str]) -> dict[str, str]:
    """Return pip's own settings (files and environment variables) of the options that decide where packages come from.

    uv does not read them; a user who has told pip of a mirror or a folder of wheels has told segbench.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **safe},
    )
    settings: dict[str, str] = {}
    order = {"global": 0, "install": 1, ":env:": 2}
    lines = [
        re.fullmatch(r"(global|install|:env:)\.([\w-]+)=(['\"])(.*)\3", line) for line in listed.stdout.splitlines()
    ]
    for match in sorted((m for m in lines if m), key=lambda m: order[m[1]]):
        settings[match[2]] = match[4].replace("\\n", " ")
    if listed.returncode != 0:  # an engine without pip: its variables still count
        names = ("index-url", "extra-index-url", "find-links", "cert")
        variables = {name: os.environ.get("PIP_" + name.upper().replace("-", "_")) for name in names}
        settings.update({name: value for name, value in variables.items() if value})
    return settings


def uv_options(settings: Mapping[str, str]) -> Iterator[str]:
    """Yield what uv is told of pip's settings, which hold no secrets any more."""
    for name in _OF_PLACES:
        option = "allow-insecure-host" if name == "trusted-host" else name
        for value in settings.get(name, "").split():
            yield f"--{option}={value}"
