"""Serves the report of a running grid to a browser on this machine: the same page, built anew when results come in."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from segbench.errors import SegbenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
_HOSTS = frozenset({LOOPBACK, "localhost"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# The page polls for a newer version and reloads, unless the reader is in the middle of something
_LIVE = """\
<script>
"use strict";
(() => {
  const address = new URL("version" + location.search, location.href);
  const version = "VERSION";
  const busy = () => document.querySelector("dialog[open], details.filter[open]") || document.hidden;
  setInterval(async () => {
    if (busy()) return;
    try {
      const answer = await fetch(address);
      if (answer.ok && (await answer.text()) !== version) {
        sessionStorage.setItem("segbench-scroll", String(scrollY));
        location.reload();
      }
    } catch { /* the server has ended: the page stays as it is */ }
  }, 2000);
  const before = sessionStorage.getItem("segbench-scroll");
  sessionStorage.removeItem("segbench-scroll");
  if (before) {
    const back = setInterval(() => {
      if (!("ready" in document.documentElement.dataset)) return;
      clearInterval(back);
      scrollTo(0, Number(before));
    }, 50);
  }
})();
</script>
"""


@dataclass
class LivePage:
    """The report's page as it is now: built when it is asked for and the results have changed.

    Parameters
    ----------
    build
        Returns the page's HTML.
    state
        Returns something that differs when the results do.
    """

    build: Callable[[], str]
    state: Callable[[], Any]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: Any = None
    _html: bytes = b""

    @property
    def version(self) -> str:
        """A name of the results as they are: the page is asked for anew where it differs."""
        return str(hash(repr(self.state())) & 0xFFFFFFFF)

    def read(self) -> bytes:
        """Return the page, with a script that asks for a newer one.

        Raises
        ------
        SegbenchError
            It cannot be built.
        """
        with self._lock:
            version = self.version
            if not self._html or version != self._seen:
                html = self.build().replace("default-src 'none'", "default-src 'none'; connect-src 'self'", 1)
                live = _LIVE.replace("VERSION", version)
                head, _, tail = html.rpartition("</body>")
                self._html = f"{head}{live}</body>{tail}".encode("utf-8", "replace")
                self._seen = version
            return self._html


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A restart finds its port free
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], page: LivePage, token: str) -> None:
        self.page, self.token = page, token
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that hung up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "segbench", ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer with the page or its version, to who names this machine and knows the token."""
        address = urlsplit(self.path)
        if not self._host_is_this_machine():
            return self._answer(HTTPStatus.FORBIDDEN, b"this server answers to localhost alone\n")
        given = parse_qs(address.query).get("token", [""])[0]
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.server.token.encode()):
            return self._answer(HTTPStatus.FORBIDDEN, b"the address lacks the token that segbench printed\n")
        if address.path == "/version":
            return self._answer(HTTPStatus.OK, self.server.page.version.encode())
        if address.path != "/":
            return self._answer(HTTPStatus.NOT_FOUND, b"there is no such page\n")
        try:
            html = self.server.page.read()
        except SegbenchError as error:
            told = f"{error}\nThis page tries again every three seconds.\n"
            return self._answer(HTTPStatus.SERVICE_UNAVAILABLE, told.encode("utf-8", "replace"), again="3")
        return self._answer(HTTPStatus.OK, html, "text/html; charset=utf-8")

    def _host_is_this_machine(self) -> bool:
        """Whether the request names this machine and port: another name is that of a site which was rebound to it."""
        name, _, port = self.headers.get("Host", "").rpartition(":")
        return name.lower() in _HOSTS and port == str(self.server.server_address[1])

    def _answer(
        self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8", again: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if again:
            self.send_header("Refresh", again)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log: its lines would hold the token."""


@contextmanager
def serving(page: LivePage, port: int = 0) -> Iterator[str]:
    """Serve a page on the loopback interface while the context lasts; gives the address with its token.

    Parameters
    ----------
    page
        What is served.
    port
        Where; any free one where 0.

    Raises
    ------
    SegbenchError
        The port is taken, or may not be used.
    """
    try:
        server = _Server((LOOPBACK, port), page, secrets.token_urlsafe(24))
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error
        raise SegbenchError(f"cannot serve on port {port}: {told}; leave --port out for a free one") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/?token={server.token}"
    finally:
        server.shutdown()
        server.server_close()


def wait_for_the_end() -> None:
    """Wait until the user presses Ctrl-C."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
